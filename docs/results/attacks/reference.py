"""AutoAttack's reference implementation on KW-Small: accuracy on the first N CIFAR-10 test images, stage by stage.

    pip install torch numpy safetensors pyautoattack==0.2.0
    python reference.py DATA N EPS OUT       # as in: reference.py ../datasets 1000 36/255 left.json

OUT becomes a list of N booleans: which images were left.
"""

import fractions
import json
import logging
import pathlib
import sys
import tarfile
import time

import numpy as np
import torch
from pyautoattack import AutoAttack
from safetensors.numpy import load_file


class KwSmall(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        self.w = {name: torch.from_numpy(values) for name, values in load_file(path).items()}
        self.mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)

    def forward(self, x):
        conv, linear, relu = (getattr(torch.nn.functional, f) for f in ("conv2d", "linear", "relu"))
        w, x = self.w, (x - self.mean) / 0.225
        for layer in ("conv1", "conv2"):
            x = relu(conv(x, w[layer + ".weight"], w[layer + ".bias"], stride=2, padding=1))
        x = relu(linear(x.flatten(1), w["linear1.weight"], w["linear1.bias"]))
        return linear(x, w["linear2.weight"], w["linear2.bias"])


def main():
    data, n, eps = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(fractions.Fraction(sys.argv[3]))
    torch.set_num_threads(1)
    with tarfile.open(data / "cifar10/cifar-10-binary.tar.gz") as archive:
        raw = archive.extractfile("cifar-10-batches-bin/test_batch.bin").read(3073 * n)
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
    x = torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255)
    y = torch.from_numpy(rows[:, 0].astype(np.int64))
    network = KwSmall(data / "models/kw_cifar10_small_36px.safetensors").eval()
    logging.basicConfig(level=logging.DEBUG)
    start = time.time()
    attack = AutoAttack(network, norm="L2", eps=eps, version="standard", seed=0)
    adversarial = attack.run_standard_evaluation(x, y, batch_size=500)
    print("seconds", time.time() - start)
    adversarial = adversarial[0] if isinstance(adversarial, tuple) else adversarial
    with torch.no_grad():
        left = network(adversarial).argmax(1) == y
    print("left", int(left.sum()), "farthest", float((adversarial - x).flatten(1).norm(dim=1).max()))
    pathlib.Path(sys.argv[4]).write_text(json.dumps(left.tolist()))


if __name__ == "__main__":
    main()
