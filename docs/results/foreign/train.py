#!/usr/bin/env python3
"""Networks of other libraries, trained for a few minutes on CIFAR-10 and written as ONNX, to be imported and audited.

  python3 train.py CIFAR_BINARY_FOLDER OUT [NAME ...]     orthogonium torchlip resnet

orthogonium: strided AOC convolutions with cyclic padding, MaxMin, an orthogonal head; torchlip: spectral convolutions with zero
padding, GroupSort2, scaled pooling, written by its vanilla_export; resnet: batch normalisation, zero padding, residual sums, unconstrained.
The first 10,000 training images, 2 epochs, seed 0, one thread. Needs: torch orthogonium deel-torchlip numpy onnx.
"""
import pathlib, sys
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from torch.nn.utils import parametrize

torch.set_num_threads(1); torch.manual_seed(0)
folder, out = map(pathlib.Path, sys.argv[1:3])
out.mkdir(parents=True, exist_ok=True)
raw = np.fromfile(folder / "data_batch_1.bin", np.uint8).reshape(-1, 3073)
x = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255))
y = torch.from_numpy(raw[:, 0].astype(np.int64))


def orthogonium():
    from orthogonium.layers import AdaptiveOrthoConv2d, OrthoLinear
    from orthogonium.layers.custom_activations import MaxMin
    conv = lambda i, o, k, s, p: AdaptiveOrthoConv2d(i, o, kernel_size=k, stride=s, padding=p, padding_mode="circular", bias=True)
    return nn.Sequential(conv(3, 16, 3, 1, 1), MaxMin(axis=1), conv(16, 32, 4, 2, 1), MaxMin(axis=1), conv(32, 64, 4, 2, 1), MaxMin(axis=1),
                         nn.Flatten(), OrthoLinear(64 * 64, 10))


def torchlip():
    from deel import torchlip as lip
    return lip.Sequential(lip.SpectralConv2d(3, 16, (3, 3), padding=1), lip.GroupSort2(), lip.ScaledAvgPool2d((2, 2)),
                          lip.SpectralConv2d(16, 32, (3, 3), padding=1), lip.GroupSort2(), lip.ScaledAvgPool2d((2, 2)),
                          nn.Flatten(), lip.SpectralLinear(32 * 64, 64), lip.GroupSort2(), lip.SpectralLinear(64, 10))


class Block(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.short = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o)) if s > 1 else nn.Sequential()

    def forward(self, x):
        return F.relu(self.nb(self.b(F.relu(self.na(self.a(x))))) + self.short(x))


def resnet():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


MAKERS = {"orthogonium": orthogonium, "torchlip": torchlip, "resnet": resnet}
for name in sys.argv[3:] or MAKERS:
    net = MAKERS[name]()
    net.train(); net(x[:4])
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 2 * (len(x) // 100))
    for epoch in range(2):
        for idx in torch.randperm(len(x)).split(100):
            scale = 1 if name == "resnet" else 4
            loss = F.cross_entropy(scale * net(x[idx]), y[idx])
            opt.zero_grad(); loss.backward(); opt.step(); schedule.step()
    net.eval()
    net = net.vanilla_export() if name == "torchlip" else net
    for module in net.modules():
        for parameter in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, parameter, leave_parametrized=True)
    with torch.no_grad():
        accuracy = (net(x[:2000]).argmax(1) == y[:2000]).float().mean().item()
    torch.onnx.export(net, (x[:2],), str(out / f"{name}.onnx"), input_names=["x"], output_names=["y"], dynamo=False, dynamic_axes={"x": {0: "batch"}})
    print(f"{name}: loss {loss.item():.3f}, {100 * accuracy:.1f} % of 2,000 training images", flush=True)
