#!/usr/bin/env python3
"""Searches for counterexamples to executed radii, in PyTorch.

  lipconv certify NETWORK --dataset cifar10 --test-limit 500 --out cert.json
  lipconv export NETWORK --out net/exported.safetensors
  python3 hunt.py net/exported.safetensors cert.json --images FILE [--arithmetic f32|tf32|f64] [--tries 100000] [--share 0.999]

FILE holds the images of the certificate in their order: MNIST's idx file, or a batch of CIFAR-10 in its binary format.
Every perturbation has the norm share · radius of its image. Half of them are along the gradient of the difference of the two largest logits,
turned by noise of growing size; the others start there and take five steps of projected gradient descent on the sphere.
TF32 is emulated: the factors of every convolution and dense layer are rounded or cut to 11 significant bits, at random for each batch.
Prints the number of perturbations, and how many changed the class: none must inside the radius. With --share 1.3 most should.
"""
import argparse, importlib.util, json, pathlib
import numpy as np, torch, torch.nn as nn

ap = argparse.ArgumentParser()
ap.add_argument("weights"); ap.add_argument("certificate")
ap.add_argument("--images", required=True); ap.add_argument("--arithmetic", default="f32")
ap.add_argument("--tries", type=int, default=100_000); ap.add_argument("--share", type=float, default=0.999)
ap.add_argument("--threads", type=int, default=1); ap.add_argument("--seed", type=int, default=0)
a = ap.parse_args()
torch.set_num_threads(a.threads); torch.manual_seed(a.seed)
dtype = torch.float64 if a.arithmetic == "f64" else torch.float32
generator = np.random.default_rng(a.seed)

path = pathlib.Path(a.weights)
spec = importlib.util.spec_from_file_location("exported", path.with_suffix(".py"))
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
net = module.load(str(path)).to(dtype).eval()

raw = np.fromfile(a.images, np.uint8)
if raw[:4].tolist() == [0, 0, 8, 3]:
    images = raw[16:].reshape(-1, 1, 28, 28)
else:
    images = raw.reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
images = torch.from_numpy(images.astype(np.float32) / np.float32(255)).to(dtype)


def tf32(t, cut):
    bits = t.contiguous().view(torch.int32)
    return ((bits if cut else bits + 0x1000) & ~0x1FFF).view(torch.float32)


stored = {m: m.weight.detach().clone() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
mode = {"cut": True}
if a.arithmetic == "tf32":
    for m in stored:
        m.register_forward_pre_hook(lambda m, x: (x[0] + (tf32(x[0].detach(), mode["cut"]) - x[0].detach()),))


def logits(x):
    with torch.no_grad():
        if a.arithmetic == "tf32":
            mode["cut"] = bool(generator.integers(2))
            for m, weight in stored.items():
                m.weight.copy_(tf32(weight, mode["cut"]))
        return net(x)


def descent(x, label):
    """The gradient of the true logit's lead over the largest other one."""
    x = x.clone().requires_grad_()
    y = net(x)
    others = y.clone(); others[torch.arange(len(y)), label] = -torch.inf
    lead = y[torch.arange(len(y)), label] - others.max(1).values
    (g,) = torch.autograd.grad(lead.sum(), x)
    return unit(g.double())


def unit(d):
    return d / d.flatten(1).norm(dim=1).clamp(min=1e-300).view(-1, 1, 1, 1)


samples = json.load(open(a.certificate))["samples"]
held = [(i, s["executed"][a.arithmetic], s["prediction"]) for i, s in enumerate(samples) if s["executed"].get(a.arithmetic, 0) > 0]
print(f"{len(held)} of {len(samples)} images have a radius in {a.arithmetic}")
tries = changed = 0
while held and tries < a.tries:
    batch = [held[k] for k in generator.integers(len(held), size=min(200, a.tries - tries))]
    x = images[[i for i, _, _ in batch]]
    label = torch.tensor([p for _, _, p in batch])
    rho = torch.tensor([a.share * r for _, r, _ in batch], dtype=torch.float64).view(-1, 1, 1, 1)
    noise = torch.from_numpy(10.0 ** generator.uniform(-3, 0.5, size=(len(batch), 1, 1, 1)))
    d = unit(unit(torch.randn(x.shape, dtype=torch.float64)) * noise - descent(x, label))
    if generator.integers(2):
        for _ in range(5):
            d = unit(d - 0.5 * descent((x.double() + rho * d).to(dtype), label))
    y = (x.double() + rho * d).to(dtype)
    within = (y.double() - x.double()).flatten(1).norm(dim=1) <= rho.flatten() / a.share if a.share < 1 else torch.ones(len(batch), dtype=bool)
    out = logits(y)
    changed += int(((out.argmax(1) != label) & within).sum())
    tries += int(within.sum())
print(f"{tries} perturbations at {a.share} of the radius: {changed} changed the class")
