"""Makes the files of this folder, with which the commands of the book run.

    pip install torch onnx safetensors numpy
    python make.py

shapes/             pictures of discs and bars, 16 x 16, in the folders train/CLASS and test/CLASS
residual.onnx       a network of theirs: zero padding, batch normalisation, a residual sum
residual.safetensors  its weights alone; residual.toml describes the layers
spectral.onnx       a network whose layers were divided by the norm of the reshaped weight, as in spectral normalisation of GANs
softplus.onnx       a network with an operator that lipconv refuses
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
SIDE = 16
COUNTS = {"train": 24, "test": 8}
CLASSES = ["bar", "disc"]


def picture(rng, kind):
    """Light on dark, with a little noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    cx, cy = rng.uniform(6, SIDE - 6, size=2)
    if kind == "disc":
        distance = np.hypot(x - cx, y - cy) - rng.uniform(3, 5)
    else:
        angle = rng.uniform(0, math.pi)
        along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        across = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        distance = np.maximum(np.abs(along) - 6, np.abs(across) - rng.uniform(1, 1.6))
    light = np.clip(0.5 - distance, 0, 1) * rng.uniform(0.7, 1) + rng.normal(0, 0.03, (SIDE, SIDE))
    return np.clip(light * 255, 0, 255).astype(np.uint8)


def png(pixels):
    """A grey picture as a file."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def write_shapes():
    """Writes the pictures; those for training and their labels."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for part, count in COUNTS.items():
        for label, kind in enumerate(CLASSES):
            folder = HERE / "shapes" / part / kind
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = picture(rng, kind)
                (folder / f"{i:02}.png").write_bytes(png(pixels))
                if part == "train":
                    images.append(pixels.astype(np.float32) / 255)
                    labels.append(label)
    return torch.tensor(np.stack(images))[:, None], torch.tensor(labels)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.pool = nn.AvgPool2d(2)
        self.linear = nn.Linear(64, 2)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.linear(self.pool(x).flatten(1))


def spectral():
    """Each weight is divided by the norm of its reshaped matrix."""
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        norm(nn.Conv2d(1, 8, 3, padding=1), n_power_iterations=5),
        nn.ReLU(),
        norm(nn.Conv2d(8, 8, 3, padding=1), n_power_iterations=5),
        nn.ReLU(),
        nn.Flatten(),
        norm(nn.Linear(8 * SIDE * SIDE, 2), n_power_iterations=5),
    )


def fit(network, images, labels, sharpness):
    """Full batches; a sharp loss asks for large margins."""
    adam = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(150):
        adam.zero_grad()
        nn.functional.cross_entropy(sharpness * network(images), labels).backward()
        adam.step()
    return network.eval()


def export(network, name):
    torch.onnx.export(
        network, (torch.zeros(2, 1, SIDE, SIDE),), HERE / name, input_names=["x"], output_names=["y"],
        dynamic_axes={"x": {0: "batch"}}, dynamo=False,
    )


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = write_shapes()
    residual = fit(Residual(), images, labels, 1)
    export(residual, "residual.onnx")
    weights = {name: tensor for name, tensor in residual.state_dict().items() if "num_batches" not in name}
    save_file(weights, HERE / "residual.safetensors")
    network = fit(spectral(), images, labels, 1)
    for module in network.modules():
        if hasattr(module, "parametrizations"):
            nn.utils.parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    export(network, "spectral.onnx")
    export(nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4), nn.Softplus(), nn.Linear(4, 2)), "softplus.onnx")


if __name__ == "__main__":
    main()
