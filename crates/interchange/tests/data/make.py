"""Makes the ONNX files of this folder, and the logits that torch gives for a few images.

    pip install torch onnx onnxruntime onnxscript safetensors orthogonium deel-torchlip
    python make.py

Every network is small, has random weights from a fixed seed, and is written by both exporters of torch. NAME.safetensors holds `images` and
`logits` (torch, f32); the script also checks that onnxruntime gives the same.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent


class Normalised(nn.Module):
    """The input normalised by channel, then a network."""

    def __init__(self, mean, std, inner):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.inner = inner

    def forward(self, x):
        return self.inner((x - self.mean) / self.std)


class Block(nn.Module):
    """A residual block with batch normalisation."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class MaxMin(nn.Module):
    """Maxima of the two halves of the channels first, then the minima."""

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)


class Concatenated(nn.Module):
    """Two branches side by side, scaled."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return torch.cat([self.a(x), 0.5 * self.b(x)], dim=1)


def kw_like():
    return (3, 12, 12), Normalised(
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
        nn.Sequential(
            nn.Conv2d(3, 4, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(4, 6, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(54, 12),
            nn.ReLU(),
            nn.Linear(12, 10),
        ),
    )


def resnet_like():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Block(4, 4, 1),
        Block(4, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return (3, 8, 8), network


def cyclic():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"),
        MaxMin(),
        nn.PixelUnshuffle(2),
        nn.Conv2d(16, 8, 3, padding=1, padding_mode="circular", groups=2),
        MaxMin(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    return (1, 8, 8), network


def branches():
    a = nn.Sequential(nn.Conv2d(2, 3, 3, padding=2, dilation=2), nn.ReLU())
    b = nn.Sequential(nn.Conv2d(2, 2, (3, 1), padding=(1, 0), groups=2), nn.BatchNorm2d(2))
    return (2, 7, 6), nn.Sequential(Concatenated(a, b), nn.Flatten(), nn.Linear(5 * 42, 10))


def aoc():
    from orthogonium.layers import AdaptiveOrthoConv2d, OrthoLinear
    from orthogonium.layers.custom_activations import MaxMin as OrthogoniumMaxMin

    network = nn.Sequential(
        AdaptiveOrthoConv2d(2, 4, kernel_size=3, padding=1, padding_mode="circular", bias=True),
        OrthogoniumMaxMin(axis=1),
        AdaptiveOrthoConv2d(4, 8, kernel_size=4, stride=2, padding=1, padding_mode="circular", bias=True),
        OrthogoniumMaxMin(axis=1),
        nn.Flatten(),
        OrthoLinear(8 * 16, 10),
    )
    return (2, 8, 8), without_parametrisations(network)


def torchlip():
    from deel import torchlip

    network = torchlip.Sequential(
        torchlip.SpectralConv2d(1, 4, (3, 3), padding=1),
        torchlip.GroupSort2(),
        torchlip.ScaledAvgPool2d((2, 2)),
        torchlip.SpectralConv2d(4, 6, (3, 3), padding=1),
        torchlip.GroupSort2(),
        nn.Flatten(),
        torchlip.SpectralLinear(96, 10),
    )
    network.train()
    network(torch.rand(4, 1, 8, 8))
    return (1, 8, 8), network.eval().vanilla_export()


NETWORKS = {
    "kw_like": kw_like,
    "resnet_like": resnet_like,
    "cyclic": cyclic,
    "branches": branches,
    "aoc": aoc,
    "torchlip": torchlip,
}


def settle(network, shape):
    """Batch normalisations with statistics of their own."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, *shape))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.3, 0.3)
    return network.eval()


def without_parametrisations(network):
    """Weights as plain tensors: what orthogonium's layers compute, written out."""
    from torch.nn.utils import parametrize

    network(torch.zeros(1, *SHAPES["aoc"]))
    for module in network.modules():
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network


SHAPES = {"aoc": (2, 8, 8)}


def export(network, images, path, dynamo):
    more = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(network, (images[:2],), path, input_names=["x"], output_names=["y"], dynamo=dynamo, verbose=False, **more)


def main():
    for name, make in NETWORKS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(0)
        shape, network = make()
        network = settle(network, shape)
        images = torch.rand(8, *shape)
        with torch.no_grad():
            logits = network(images)
        save_file({"images": images, "logits": logits.contiguous()}, HERE / f"{name}.safetensors")
        for dynamo in (False, True):
            path = HERE / f"{name}{'_dynamo' if dynamo else ''}.onnx"
            try:
                export(network, images, path, dynamo)
            except Exception as error:
                print(f"{path.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            model = onnx.load(path)
            session = onnxruntime.InferenceSession(path)
            (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
            operators = sorted({node.op_type for node in model.graph.node})
            error = np.abs(found - logits.numpy()).max()
            print(f"{path.name}: {path.stat().st_size} bytes, opset {model.opset_import[0].version}, {error:.1e}, {' '.join(operators)}")


if __name__ == "__main__":
    main()
