#!/usr/bin/env python3
"""What the peers cost, to be measured in the same minute as our own numbers, because machines are noisy.

`cargo xtask bench` calls this where a python3 with torch is found; by hand:

  peer_torch.py step   NET MODE [--device cpu|cuda] [--batch 128] [--n 10]   one training step
  peer_torch.py build  CHANNELS KERNEL [--device ...]                        one kernel assembly, forward and with backward
  peer_torch.py layer  NAME CHANNELS KERNEL SIDE                             one layer after BCOP, forward with backward, on the CPU
  peer_torch.py strided C_IN C_OUT KERNEL STRIDE                             one strided AOC kernel of orthogonium, likewise
  peer_torch.py spectrum CHANNELS KERNEL SIZE                                all singular values of a cyclic convolution
  peer_torch.py onnx   FILE [--batch 128] [--n 10]                           one forward pass in onnxruntime, on the CPU
  peer_torch.py gemm                                                         this machine's f32 GEMM rate

NET:  small-mnist small-cifar10 large-mnist large-cifar10
MODE: plain        the same architecture without any constraint (what a user gives up speed against)
      bcop         the paper's algorithm written out plainly in PyTorch: 20 Bjorck iterations with autograd
      orthogonium  the fastest published library, with its default parameters
NAME: aol sll cpl bro cayley soc, written out from the formulas of their papers

Needs: pip install torch orthogonium numpy onnxruntime
Prints one JSON object: times are medians of --n runs in milliseconds after two to warm up, on --threads threads;
rates are in GFLOP/s.
"""
import argparse, json, time
import torch, torch.nn as nn, torch.nn.functional as F

ap = argparse.ArgumentParser()
ap.add_argument("what"); ap.add_argument("args", nargs="*")
ap.add_argument("--device", default="cpu"); ap.add_argument("--batch", type=int, default=128)
ap.add_argument("--n", type=int, default=10); ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
torch.set_num_threads(a.threads)
dev = torch.device(a.device)


def sync():
    if dev.type == "cuda":
        torch.cuda.synchronize()


def median_ms(f, n):
    f(); f(); sync()
    ts = []
    for _ in range(n):
        t = time.perf_counter(); f(); sync(); ts.append((time.perf_counter() - t) * 1e3)
    return sorted(ts)[len(ts) // 2]


def bjorck(w, iters=20):
    if w.shape[-2] < w.shape[-1]:
        return bjorck(w.transpose(-1, -2), iters).transpose(-1, -2)
    with torch.no_grad():
        u = torch.randn(*w.shape[:-1], 1, device=w.device)
        for _ in range(10):
            v = F.normalize(w.transpose(-1, -2) @ u, dim=-2); u = F.normalize(w @ v, dim=-2)
        s = (u.transpose(-1, -2) @ w @ v)
    w = w / s
    for _ in range(iters):
        w = 1.5 * w - 0.5 * w @ (w.transpose(-1, -2) @ w)
    return w


class MaxMin(nn.Module):
    def forward(self, x):
        p, q = x.chunk(2, 1)
        return torch.cat([torch.maximum(p, q), torch.minimum(p, q)], 1)


def cyclic(x, k):
    return F.pad(x, (k // 2, (k - 1) // 2, k // 2, (k - 1) // 2), mode="circular") if k > 1 else x


class Conv(nn.Module):
    def __init__(self, i, o, k, stride, bcop):
        super().__init__()
        self.s, self.k, self.i, self.o, self.bcop = stride, k // stride, i * stride * stride, o, bcop
        self.bias = nn.Parameter(torch.zeros(o))
        n = max(self.i, o)
        self.w = nn.Parameter(torch.randn(2 * self.k - 1, n, n) / n ** 0.5 if bcop else torch.randn(o, self.i, self.k, self.k) * 0.05)

    def kernel(self):
        if not self.bcop:
            return self.w
        m, k = bjorck(self.w), self.k
        n = m.shape[-1]
        eye = torch.eye(n, device=m.device)
        b = m[1:, :, : n // 2]
        pq = b @ b.transpose(-1, -2)
        z = {(0, 0): m[0]}
        for step in range(k - 1):
            for f, ax in ((pq[2 * step], 0), (pq[2 * step + 1], 1)):
                new = {}
                for (r, c), blk in z.items():
                    for j, g in ((0, f), (1, eye - f)):
                        key = (r + j, c) if ax == 0 else (r, c + j)
                        new[key] = new[key] + blk @ g if key in new else blk @ g
                z = new
        w = torch.stack([torch.stack([z[r, c] for c in range(k)]) for r in range(k)])
        return w[:, :, : self.o, : self.i].permute(2, 3, 0, 1)

    def forward(self, x):
        if self.s > 1:
            x = F.pixel_unshuffle(x, self.s)
        return F.conv2d(cyclic(x, self.k), self.kernel(), self.bias)


class Dense(nn.Linear):
    def forward(self, x):
        return F.linear(x, bjorck(self.weight), self.bias)


def net(name, mode):
    ch, hw = (1, 28) if "mnist" in name else (3, 32)
    f = (hw // 4) ** 2
    if mode == "orthogonium":
        from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d
        from orthogonium.layers.linear import OrthoLinear
        from orthogonium.reparametrizers import DEFAULT_ORTHO_PARAMS as P
        conv = lambda i, o, k, s: AdaptiveOrthoConv2d(in_channels=i, out_channels=o, kernel_size=k, stride=s, padding=(k - s) // 2 if s > 1 else k // 2, padding_mode="circular", ortho_params=P)
        lin = OrthoLinear
    else:
        conv = lambda i, o, k, s: Conv(i, o, k, s, mode == "bcop")
        lin = nn.Linear if mode == "plain" else Dense
    if name.startswith("small"):
        return nn.Sequential(conv(ch, 16, 4, 2), MaxMin(), conv(16, 32, 4, 2), MaxMin(), nn.Flatten(), lin(32 * f, 100), MaxMin(), lin(100, 10)), ch, hw
    return nn.Sequential(conv(ch, 32, 3, 1), MaxMin(), conv(32, 32, 4, 2), MaxMin(), conv(32, 64, 3, 1), MaxMin(), conv(64, 64, 4, 2), MaxMin(),
                         nn.Flatten(), lin(64 * f, 512), MaxMin(), lin(512, 512), MaxMin(), lin(512, 10)), ch, hw


class Later(nn.Module):
    """A layer of as many channels inside as outside, by the formula of its paper, without what a library would check."""

    def __init__(self, name, c, k):
        super().__init__()
        self.name, self.k, self.c = name, k, c
        self.w = nn.Parameter(torch.randn(c, c // 2 if name == "bro" else c, k, k) / (c * k * k) ** 0.5)
        self.q, self.bias = nn.Parameter(torch.zeros(c)), nn.Parameter(torch.zeros(c))

    def correlation(self, w):
        return F.conv2d(w, w, padding=self.k - 1).abs().sum((2, 3))

    def transfer(self, side):
        return torch.fft.rfft2(self.w, s=(side, side)).permute(2, 3, 0, 1)

    def at_frequencies(self, x, matrices):
        spectrum = torch.fft.rfft2(x).permute(2, 3, 1, 0)
        y = torch.fft.irfft2((matrices @ spectrum).permute(3, 2, 0, 1), s=x.shape[2:])
        return y + self.bias.view(1, -1, 1, 1)

    def forward(self, x):
        name, k, w, side = self.name, self.k, self.w, x.shape[-1]
        if name == "aol":
            w = w * self.correlation(w.transpose(0, 1)).sum(1).rsqrt().view(1, -1, 1, 1)
            return F.conv2d(cyclic(x, k), w, self.bias)
        if name in ("sll", "cpl"):
            sums = self.correlation(w)
            t = 1 / (sums * (self.q[None] - self.q[:, None]).exp()).sum(1) if name == "sll" else (1 / sums.sum(1).max()).expand(self.c)
            inner = t.view(1, -1, 1, 1) * F.relu(F.conv2d(cyclic(x, k), w, self.bias))
            back = F.pad(inner, ((k - 1) // 2, k // 2, (k - 1) // 2, k // 2), mode="circular")
            return x - 2 * F.conv2d(back, w.flip(2, 3).transpose(0, 1))
        if name == "bro":
            v = self.transfer(side)
            gram = v.mH @ v
            gram = gram + 1e-7 * gram.diagonal(dim1=-2, dim2=-1).real.mean() * torch.eye(gram.shape[-1])
            return self.at_frequencies(x, torch.eye(self.c) - 2 * v @ torch.linalg.solve(gram, v.mH))
        if name == "cayley":
            v, eye = self.transfer(side), torch.eye(self.c)
            skew = v - v.mH
            return self.at_frequencies(x, torch.linalg.solve(eye + skew, eye - skew))
        if name == "soc":
            skew = w - w.flip(2, 3).transpose(0, 1)
            skew = skew / skew.abs().flatten(1).sum(1).max().clamp(min=1)
            term = y = x
            for i in range(1, 13):
                term = F.conv2d(cyclic(term, k), skew) / i
                y = y + term
            return y + self.bias.view(1, -1, 1, 1)
        raise SystemExit(f"unknown layer {name}")


res = {"what": a.what, "args": a.args, "device": a.device, "torch": torch.__version__}
if a.what == "step":
    name, mode = a.args
    torch.manual_seed(0)
    m, ch, hw = net(name, mode)
    m = m.to(dev)
    opt = torch.optim.Adam([p for p in m.parameters() if p.requires_grad], 1e-3)
    x, y = torch.rand(a.batch, ch, hw, hw, device=dev), torch.randint(0, 10, (a.batch,), device=dev)

    def step():
        loss = F.multi_margin_loss(m(x), y, margin=2.12)
        opt.zero_grad(); loss.backward(); opt.step()

    res["step_ms"] = median_ms(step, a.n)
    plain = net(name, "plain")[0].to(dev)
    with torch.no_grad():
        res["plain_forward_ms"] = median_ms(lambda: plain(x), a.n)
elif a.what == "build":
    c, k = map(int, a.args)
    layer = Conv(c, c, k, 1, True).to(dev)
    res["bcop_forward_ms"] = median_ms(lambda: layer.kernel().detach(), a.n)
    res["bcop_forward_backward_ms"] = median_ms(lambda: layer.kernel().sum().backward(), a.n)
    from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d
    from orthogonium.reparametrizers import DEFAULT_ORTHO_PARAMS as P
    aoc = AdaptiveOrthoConv2d(in_channels=c, out_channels=c, kernel_size=k, padding=k // 2, padding_mode="circular", ortho_params=P).to(dev)
    res["orthogonium_forward_ms"] = median_ms(lambda: aoc.weight.detach(), a.n)
    res["orthogonium_forward_backward_ms"] = median_ms(lambda: aoc.weight.sum().backward(), a.n)
elif a.what == "layer":
    name, c, k, side = a.args[0], *map(int, a.args[1:])
    torch.manual_seed(0)
    layer = Later(name, c, k)
    x = torch.rand(a.batch, c, side, side, requires_grad=True)
    cotangent = torch.rand(a.batch, c, side, side)
    res["layer_ms"] = median_ms(lambda: layer(x).backward(cotangent), a.n)
elif a.what == "strided":
    c_in, c_out, k, s = map(int, a.args)
    from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d
    from orthogonium.reparametrizers import DEFAULT_ORTHO_PARAMS as P
    aoc = AdaptiveOrthoConv2d(in_channels=c_in, out_channels=c_out, kernel_size=k, stride=s, padding=0, ortho_params=P)
    res["strided_ms"] = median_ms(lambda: aoc.weight.sum().backward(), a.n)
elif a.what == "spectrum":
    import numpy as np
    c, k, s = map(int, a.args)
    w = np.random.default_rng(0).standard_normal((c, c, k, k))
    t = time.perf_counter()
    np.linalg.svd(np.fft.fft2(w, (s, s), axes=(2, 3)).transpose(2, 3, 0, 1), compute_uv=False)
    res["numpy_ms"] = (time.perf_counter() - t) * 1e3
elif a.what == "onnx":
    import numpy as np, onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = a.threads
    session = ort.InferenceSession(a.args[0], options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    x = np.random.default_rng(0).random((a.batch, *image.shape[1:]), dtype=np.float32)
    res["onnx_forward_ms"] = median_ms(lambda: session.run(None, {image.name: x}), a.n)
elif a.what == "gemm":
    for n in (512, 1024, 2048):
        p = torch.randn(n, n, device=dev)
        res[f"gflops_{n}"] = 2 * n ** 3 / median_ms(lambda: p @ p, 5) / 1e6
print(json.dumps(res))
