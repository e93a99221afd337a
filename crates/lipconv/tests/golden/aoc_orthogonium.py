"""What orthogonium's AdaptiveOrthoConv2d does for a grid of sizes: writes aoc_orthogonium.json beside this file.

    pip install torch orthogonium
    python3 aoc_orthogonium.py

A row is c_in, c_out, kernel size, stride, groups, dilation; then either null, where the layer is refused, or the shape of the output
for an image of SIDE x SIDE pixels and the smallest and the largest singular value of the operator with cyclic padding.
"""

import json
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch
from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d

SIDE = 12
torch.manual_seed(0)
torch.set_num_threads(1)


def built(c_in, c_out, kernel, stride, groups, dilation):
    # orthogonium pads "same" for stride 1 alone
    padding = "same" if stride == 1 else (dilation * (kernel - 1) + 1 - stride + 1) // 2
    try:
        layer = AdaptiveOrthoConv2d(
            c_in, c_out, kernel, stride=stride, groups=groups, dilation=dilation, padding=padding, padding_mode="circular", bias=False
        ).eval()
    except ValueError:
        return None
    with torch.no_grad():
        basis = torch.eye(c_in * SIDE * SIDE).reshape(-1, c_in, SIDE, SIDE)
        images = layer(basis)
        values = torch.linalg.svdvals(images.reshape(len(basis), -1).double())
    return [list(images.shape[1:]), round(values[-1].item(), 6), round(values[0].item(), 6)]


rows = []
for (c_in, c_out), kernel, stride in product([(2, 4), (4, 4), (4, 2), (2, 8), (2, 16)], [1, 2, 3, 4, 5], [1, 2, 3]):
    for groups, dilation in [(1, 1), (2, 1), (1, 2), (1, 3)]:
        if dilation * (kernel - 1) + 1 <= SIDE:
            row = [c_in, c_out, kernel, stride, groups, dilation]
            rows.append([row, built(*row)])
versions = {name: version(name) for name in ["orthogonium", "torch"]}
text = json.dumps({"side": SIDE, "versions": versions, "rows": rows})
(Path(__file__).parent / "aoc_orthogonium.json").write_text(text.replace("[[[", "[\n[[").replace("]], [[", "]],\n[[").replace("null], [[", "null],\n[[") + "\n")
