"""Makes attacks.safetensors and attacks_small.safetensors: what torchattacks 3.5.1 does, step by step, in float64.

    pip install torch numpy scipy safetensors torchattacks==3.5.1
    python attacks.py attacks.safetensors
    python attacks.py attacks_small.safetensors DATA

The first: a small network and four images of random numbers. The second: KW-Small, from the data folder (its weights are not
repeated here), on two CIFAR-10 test images, and the BCOP-Small of net_small_mnist.safetensors on two of its images. Starts and
random numbers are recorded. Every sample is attacked on its own, because torchattacks uses the step of the first sample for
the whole batch in APGDT. Losses, distances and margins are read off the points that the attack asks for, steps from its local
variables.
"""

import pathlib
import sys
import tarfile

import numpy as np
import torch
import torchattacks
from safetensors.numpy import load_file, save_file

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
    for i in range(len(x)):
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


def fab(out, name, model, x, y, eps, n_classes, target):
    attack = torchattacks.FAB(model, norm="L2", eps=eps, steps=STEPS, n_classes=n_classes, multi_targeted=True)
    attack.target_class = target
    distances, best = [], []
    for i in range(len(x)):
        model.clear()
        best.append(attack.attack_single_run_targeted(x[i : i + 1], y[i : i + 1]))
        # two passes for the label and the targets, then a gradient and a test in turn
        tests = model.points[3::2]
        distances.append([float((z - x[i : i + 1]).norm()) for z in tests])
    out[name + ".distances"] = np.array(distances)
    out[name + ".best"] = torch.cat(best).detach().numpy()


def square(out, name, model, x, y, eps):
    attack = torchattacks.Square(model, norm="L2", eps=eps, n_queries=QUERIES, resc_schedule=False)
    original = torch.rand
    draws, margins, best = [], [], []
    for i in range(len(x)):
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
    out[name + ".draws"], out[name + ".margins"] = pad(draws, width), pad(margins, n_margins)
    out[name + ".best"] = torch.cat(best).detach().numpy()


def margin(row, label):
    others = torch.cat([row[:label], row[label + 1 :]])
    return row[label] - others.max()


SQUARE_EPS = 0.5


def all_attacks(out, prefix, plain, x, y, eps, square_eps, n_classes, directions):
    """Every attack on a network; the names of the arrays begin with the prefix."""
    model = Recorder(plain).eval()
    attack = torchattacks.APGD(model, norm="L2", eps=eps, steps=STEPS, loss="ce")
    cross_entropy = lambda rows, i, _: [float(torch.nn.functional.cross_entropy(r, y[i : i + 1])) for r in rows]
    apgd(out, prefix + "apgd_ce", attack, cross_entropy, x, y, directions)
    attack = torchattacks.APGD(model, norm="L2", eps=eps, steps=STEPS, loss="dlr")
    ratio = lambda rows, i, _: [float(attack.dlr_loss(r, y[i : i + 1])) for r in rows]
    apgd(out, prefix + "apgd_dlr", attack, ratio, x, y, directions)
    targeted = torchattacks.APGDT(model, norm="L2", eps=eps, steps=STEPS, n_classes=n_classes)
    for target in (2, 3):
        targeted.target_class = target

        def ratio(rows, i, clean):
            aim = clean.sort(dim=1)[1][:, -target]
            return [float(targeted.dlr_loss_targeted(r, y[i : i + 1], aim)) for r in rows]

        apgd(out, f"{prefix}apgd_t{target}", targeted, ratio, x, y, directions, target)
        fab(out, f"{prefix}fab_t{target}", model, x, y, eps, n_classes, target)
    square(out, prefix + "square", model, x, y, square_eps)


def toy(out):
    torch.manual_seed(20)
    layers, plain = network()
    x, y = images(plain)
    for i, layer in enumerate(layers):
        out[f"linear{i + 1}.weight"] = layer.weight.detach().numpy().astype(np.float32)
        out[f"linear{i + 1}.bias"] = layer.bias.detach().numpy().astype(np.float32)
    directions = torch.randn(x.shape)
    length = (directions**2).sum(dim=(1, 2, 3), keepdim=True).sqrt()
    out["images"], out["labels"] = x.numpy(), y.numpy()
    out["starts"] = (x + EPS * directions / length).clamp(0, 1).numpy()
    all_attacks(out, "", plain, x, y, EPS, SQUARE_EPS, CLASSES, directions)


def weights(path):
    return {name: torch.from_numpy(values).double() for name, values in load_file(path).items()}


def kw_small(data):
    """The network of Wong et al. 2018, and CIFAR-10's first two test images that it takes for what they are."""
    w = weights(data / "models/kw_cifar10_small_36px.safetensors")
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    conv, linear, relu = (getattr(torch.nn.functional, f) for f in ("conv2d", "linear", "relu"))

    def forward(x):
        for i, layer in enumerate(("conv1", "conv2")):
            x = (x - mean) / 0.225 if i == 0 else x
            x = relu(conv(x, w[layer + ".weight"], w[layer + ".bias"], stride=2, padding=1))
        x = relu(linear(x.flatten(1), w["linear1.weight"], w["linear1.bias"]))
        return linear(x, w["linear2.weight"], w["linear2.bias"])

    with tarfile.open(data / "cifar10/cifar-10-binary.tar.gz") as archive:
        raw = archive.extractfile("cifar-10-batches-bin/test_batch.bin").read(3073 * 100)
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
    x, y = rows[:, 1:].reshape(-1, 3, 32, 32), torch.from_numpy(rows[:, 0].astype(np.int64))
    right = torch.nonzero(forward(torch.from_numpy(x / 255.0)).argmax(1) == y).flatten()[:2]
    return forward, torch.from_numpy(x[right.numpy()] / 255.0), y[right]


def bcop_small():
    """The exported network that other tests use: cyclic convolutions of stride 2 on 2 x 2 blocks of pixels, MaxMin."""
    w = weights(pathlib.Path(__file__).parent / "net_small_mnist.safetensors")
    conv, linear = torch.nn.functional.conv2d, torch.nn.functional.linear

    def max_min(x):
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)

    def cyclic(x, layer):
        x = torch.nn.functional.pixel_unshuffle(x, 2)
        x = torch.nn.functional.pad(x, (1, 0, 1, 0), mode="circular")
        return conv(x, w[layer + ".weight"], w[layer + ".bias"])

    def forward(x):
        x = max_min(cyclic(max_min(cyclic(x, "conv1")), "conv2")).flatten(1)
        return linear(max_min(linear(x, w["linear1.weight"], w["linear1.bias"])), w["linear2.weight"], w["linear2.bias"])

    x = w["input"]
    assert (forward(x) - w["output_f64"]).abs().max() < 1e-10
    return forward, x[:2], forward(x[:2]).argmax(1)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def small(out, data):
    cases = {"kw_small": (kw_small(data), 0.5), "bcop_small": (bcop_small(), 0.5)}
    for name, ((forward, x, y), eps) in cases.items():
        torch.manual_seed(20)
        # numbers of f32, so that the file stays small
        directions = torch.randn(x.shape).to(torch.float32).double()
        out[name + ".images"], out[name + ".labels"] = x.numpy(), y.numpy()
        out[name + ".directions"] = directions.numpy()
        all_attacks(out, name + ".", Function(forward), x, y, eps, eps, 10, directions)
    for name, values in out.items():
        # a point in [0, 1] is known to 6e-8 as a number of f32
        if name.endswith((".best", ".images", ".directions")):
            out[name] = values.astype(np.float32)


def main():
    out = {}
    small(out, pathlib.Path(sys.argv[2])) if len(sys.argv) > 2 else toy(out)
    save_file({name: np.ascontiguousarray(values) for name, values in out.items()}, sys.argv[1])
    for name, values in out.items():
        print(name, values.shape, values.dtype)
        if name.endswith("apgd_ce.steps"):
            print("  halvings", [len(set(row)) - 1 for row in values.round(12).tolist()])
        if name.endswith((".distances", ".margins")):
            print("  smallest", np.nanmin(values, axis=1))


if __name__ == "__main__":
    main()
