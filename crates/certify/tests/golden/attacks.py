"""Makes attacks.safetensors: what torchattacks 3.5.1 does, step by step, in float64.

    pip install torch numpy safetensors torchattacks==3.5.1
    python attacks.py attacks.safetensors

A small network and four images of random numbers; starts and random numbers are recorded. Every sample is attacked on its
own, because torchattacks uses the step of the first sample for the whole batch in APGDT. Losses, distances and margins are
read off the points that the attack asks for, steps from its local variables.
"""

import sys

import numpy as np
import torch
import torchattacks
from safetensors.numpy import save_file

EPS, STEPS, QUERIES = 0.6, 60, 120
CHANNELS, HEIGHT, WIDTH, CLASSES, IMAGES = 3, 10, 10, 6, 4

torch.set_default_dtype(torch.float64)
# FAB converts its images to float32
torch.Tensor.float = torch.Tensor.double


class Recorder(torch.nn.Module):
    """A network that keeps the points it is asked for, its answers, and the attack's step."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.clear()

    def clear(self):
        self.points, self.logits, self.steps = [], [], []

    def forward(self, x):
        logits = self.network(x)
        self.points.append(x.detach().clone())
        self.logits.append(logits.detach().clone())
        frame = sys._getframe()
        while frame is not None and "step_size" not in frame.f_locals:
            frame = frame.f_back
        if frame is not None:
            self.steps.append(float(frame.f_locals["step_size"].flatten()[0]))
        return logits


def network():
    layers = [torch.nn.Linear(CHANNELS * HEIGHT * WIDTH, 24), torch.nn.Linear(24, 16), torch.nn.Linear(16, CLASSES)]
    for layer in layers:
        # numbers of f32, so that the file stays small
        layer.weight.data = (1.5 * layer.weight.data).to(torch.float32).double()
        layer.bias.data = layer.bias.data.to(torch.float32).double()
    relu = torch.nn.ReLU()
    return layers, torch.nn.Sequential(torch.nn.Flatten(), layers[0], relu, layers[1], relu, layers[2])


def images(model):
    x = (1.5 * torch.rand(IMAGES, CHANNELS, HEIGHT, WIDTH) - 0.25).clamp(0, 1)
    x = x.to(torch.float32).double()
    return x, model(x).argmax(1).detach()


def with_start(attack, direction, x, y):
    """One run from a start in the direction given: losses, steps used, best point."""
    original, torch.randn = torch.randn, lambda *shape, **_: direction
    try:
        attack.model.clear()
        best, _, _, _ = attack.attack_single_run(x, y)
    finally:
        torch.randn = original
    return best


def apgd(out, name, attack, losses, x, y, directions, target=None):
    values, steps, best = [], [], []
    for i in range(IMAGES):
        best.append(with_start(attack, directions[i : i + 1], x[i : i + 1], y[i : i + 1]))
        record = attack.model
        # the run towards a class asks for the image itself first
        first = 1 if target else 0
        rows = record.logits[first:]
        values.append([losses(rows, i, record.logits[0])])
        # the start is asked for before there is a step
        steps.append([record.steps])
    out[name + ".losses"] = np.concatenate(values)
    out[name + ".steps"] = np.concatenate(steps)
    out[name + ".best"] = torch.cat(best).numpy()


def fab(out, name, model, x, y, target):
    attack = torchattacks.FAB(model, norm="L2", eps=EPS, steps=STEPS, n_classes=CLASSES, multi_targeted=True)
    attack.target_class = target
    distances, best = [], []
    for i in range(IMAGES):
        model.clear()
        best.append(attack.attack_single_run_targeted(x[i : i + 1], y[i : i + 1]))
        # two passes for the label and the targets, then a gradient and a test in turn
        tests = model.points[3::2]
        distances.append([float((z - x[i : i + 1]).norm()) for z in tests])
    out[name + ".distances"] = np.array(distances)
    out[name + ".best"] = torch.cat(best).detach().numpy()


def square(out, model, x, y):
    attack = torchattacks.Square(model, norm="L2", eps=SQUARE_EPS, n_queries=QUERIES, resc_schedule=False)
    original = torch.rand
    draws, margins, best = [], [], []
    for i in range(IMAGES):
        numbers = []

        def recorded(*shape, **options):
            values = original(*shape, **options)
            numbers.extend(values.flatten().tolist())
            return values

        torch.rand = recorded
        model.clear()
        try:
            attack.init_hyperparam(x[i : i + 1])
            _, point = attack.attack_single_run(x[i : i + 1], y[i : i + 1])
        finally:
            torch.rand = original
        best.append(point)
        draws.append(numbers)
        margins.append([float(margin(row[0], int(y[i]))) for row in model.logits])
    # searches that find something end early
    width, n_margins = max(map(len, draws)), QUERIES + 1
    pad = lambda rows, n: np.array([row + [np.nan] * (n - len(row)) for row in rows])
    out["square.draws"], out["square.margins"] = pad(draws, width), pad(margins, n_margins)
    out["square.best"] = torch.cat(best).detach().numpy()


def margin(row, label):
    others = torch.cat([row[:label], row[label + 1 :]])
    return row[label] - others.max()


SQUARE_EPS = 0.5


def main():
    torch.manual_seed(20)
    layers, plain = network()
    model = Recorder(plain).eval()
    x, y = images(plain)
    out = {}
    for i, layer in enumerate(layers):
        out[f"linear{i + 1}.weight"] = layer.weight.detach().numpy().astype(np.float32)
        out[f"linear{i + 1}.bias"] = layer.bias.detach().numpy().astype(np.float32)
    directions = torch.randn(x.shape)
    length = (directions**2).sum(dim=(1, 2, 3), keepdim=True).sqrt()
    out["images"], out["labels"] = x.numpy(), y.numpy()
    out["starts"] = (x + EPS * directions / length).clamp(0, 1).numpy()

    attack = torchattacks.APGD(model, norm="L2", eps=EPS, steps=STEPS, loss="ce")
    cross_entropy = lambda rows, i, _: [float(torch.nn.functional.cross_entropy(r, y[i : i + 1])) for r in rows]
    apgd(out, "apgd_ce", attack, cross_entropy, x, y, directions)
    attack = torchattacks.APGD(model, norm="L2", eps=EPS, steps=STEPS, loss="dlr")
    apgd(out, "apgd_dlr", attack, lambda rows, i, _: [float(attack.dlr_loss(r, y[i : i + 1])) for r in rows], x, y, directions)
    targeted = torchattacks.APGDT(model, norm="L2", eps=EPS, steps=STEPS, n_classes=CLASSES)
    for target in (2, 3):
        targeted.target_class = target

        def ratio(rows, i, clean):
            aim = clean.sort(dim=1)[1][:, -target]
            return [float(targeted.dlr_loss_targeted(r, y[i : i + 1], aim)) for r in rows]

        apgd(out, f"apgd_t{target}", targeted, ratio, x, y, directions, target)
        fab(out, f"fab_t{target}", model, x, y, target)
    square(out, model, x, y)
    save_file({name: np.ascontiguousarray(values) for name, values in out.items()}, sys.argv[1])
    for name, values in out.items():
        print(name, values.shape, values.dtype)
    print("labels", y.tolist())
    for name in ("apgd_ce", "apgd_dlr", "apgd_t2"):
        print(name, "halvings", [len(set(row)) - 1 for row in out[name + ".steps"].round(12).tolist()])
    print("fab distances", out["fab_t2.distances"].min(axis=1))
    print("square margins", [np.nanmin(row) for row in out["square.margins"]])


if __name__ == "__main__":
    main()
