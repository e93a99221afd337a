"""Reference values of AOL, AOC, BRO, Cayley, LOT, SOC, SLL, CPL and Sandwich layers in float64, written from the formulas with numpy alone.

    python3 new_layers.py       writes new_layers.npz beside this file

Convolutions are dense matrices here, built pixel by pixel from the definition y[i] = sum_a W[a] x[i + a - k // 2] with cyclic indices;
layers in the frequency domain take full transforms from numpy.fft. Nothing is shared with the Rust code.
"""

from pathlib import Path

import numpy as np

rng = np.random.default_rng(20261126)
arrays = {}


def dense(kernel, h, w, stride=1, dilation=1, pad=None):
    """The matrix of a cyclic convolution: rows (o, i, j), columns (c, y, x)."""
    c_out, c_in, kh, kw = kernel.shape
    pad = (kh // 2, kw // 2) if pad is None else (pad, pad)
    oh, ow = h // stride, w // stride
    m = np.zeros((c_out, oh, ow, c_in, h, w))
    for i in range(oh):
        for j in range(ow):
            for a in range(kh):
                for b in range(kw):
                    y = (stride * i + dilation * a - pad[0]) % h
                    x = (stride * j + dilation * b - pad[1]) % w
                    m[:, i, j, :, y, x] += kernel[:, :, a, b]
    return m.reshape(c_out * oh * ow, c_in * h * w)


def apply(matrix, x, c_out, h, w):
    return (matrix @ x.reshape(len(x), -1).T).T.reshape(len(x), c_out, h, w)


def correlation(kernel):
    """sum over shifts of |K K^T|: a c_out x c_out matrix."""
    c_out, _, k, _ = kernel.shape
    total = np.zeros((c_out, c_out))
    for dy in range(-k + 1, k):
        for dx in range(-k + 1, k):
            shift = np.zeros((c_out, c_out))
            for a in range(k):
                for b in range(k):
                    if 0 <= a + dy < k and 0 <= b + dx < k:
                        shift += kernel[:, :, a, b] @ kernel[:, :, a + dy, b + dx].T
            total += np.abs(shift)
    return total


def aol(kernel):
    c_out, c_in = kernel.shape[:2]
    if c_out < c_in:
        sums = correlation(kernel).sum(1)
        return kernel / np.sqrt(sums)[:, None, None, None]
    sums = correlation(kernel.transpose(1, 0, 2, 3)).sum(1)
    return kernel / np.sqrt(sums)[None, :, None, None]


def polar(m):
    u, _, vt = np.linalg.svd(m, full_matrices=False)
    return u @ vt


def projector(m):
    q, _ = np.linalg.qr(m)
    return q @ q.T


def block(x, y):
    """Block convolution of taps [kh, kw, n, n]."""
    z = np.zeros((x.shape[0] + y.shape[0] - 1, x.shape[1] + y.shape[1] - 1, x.shape[2], y.shape[3]))
    for a in range(x.shape[0]):
        for b in range(x.shape[1]):
            for c in range(y.shape[0]):
                for d in range(y.shape[1]):
                    z[a + c, b + d] += x[a, b] @ y[c, d]
    return z


def bcop(parameter, c_out, c_in):
    """Equation (5) as an OIHW weight of a cross-correlation."""
    n = parameter.shape[1]
    x = polar(parameter[0])[None, None]
    for index, slice_ in enumerate(parameter[1:]):
        p = projector(slice_[:, : n // 2])
        pair = np.stack([p, np.eye(n) - p])
        x = block(x, pair[:, None] if index % 2 == 0 else pair[None])
    return x[::-1, ::-1, :c_out, :c_in].transpose(2, 3, 0, 1)


def aoc(convolution, frame, c_in, c_out, inner, s):
    if frame is None:
        return bcop(convolution, c_out, c_in)
    r = polar(frame).reshape(c_out, inner, s, s)
    if convolution is None:
        return r
    x = bcop(convolution, inner, c_in)
    m = x.shape[2]
    k = np.zeros((c_out, c_in, m + s - 1, m + s - 1))
    for a in range(s):
        for b in range(s):
            k[:, :, a : a + m, b : b + m] += np.einsum("oc,cihw->oihw", r[:, :, a, b], x)
    return k


def transfer(kernel, h, w):
    """The matrix at each frequency: conjugate of the transform of the kernel moved to the centre."""
    _, _, kh, kw = kernel.shape
    full = np.zeros(kernel.shape[:2] + (h, w))
    for a in range(kh):
        for b in range(kw):
            full[:, :, (a - kh // 2) % h, (b - kw // 2) % w] += kernel[:, :, a, b]
    return np.conj(np.fft.fft2(full)).transpose(2, 3, 0, 1)


def filtered(matrices, x):
    spectrum = np.fft.fft2(x).transpose(2, 3, 1, 0)
    y = np.fft.ifft2((matrices @ spectrum).transpose(3, 2, 0, 1))
    assert np.abs(y.imag).max() < 1e-12
    return y.real


def star(m):
    return np.conj(np.swapaxes(m, -1, -2))


def cayley(w):
    rows, columns = w.shape[-2:]
    if rows < columns:
        return star(cayley(star(w)))
    u, v = w[..., :columns, :], w[..., columns:, :]
    a = u - star(u) + star(v) @ v
    eye = np.eye(columns)
    inverse = np.linalg.inv(eye + a)
    return np.concatenate([inverse @ (eye - a), -2 * v @ inverse], axis=-2)


def bro(v, c_out, c_in):
    n, r = v.shape[-2:]
    gram = star(v) @ v
    epsilon = 1e-7 * np.mean(np.real(np.trace(gram, axis1=-2, axis2=-1)) / r)
    w = np.eye(n) - 2 * v @ np.linalg.inv(gram + epsilon * np.eye(r)) @ star(v)
    return w[..., :c_out, :c_in]


def soc(weight, x, terms, c_out):
    n, _, k, _ = weight.shape
    a = weight - weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    a = a / max(1.0, np.abs(a).sum((1, 2, 3)).max())
    _, _, h, w = x.shape
    m = dense(a, h, w)
    term = np.concatenate([x, np.zeros((len(x), n - x.shape[1], h, w))], axis=1).reshape(len(x), -1).T
    total = term.copy()
    for i in range(1, terms + 1):
        term = m @ term / i
        total = total + term
    return total.T.reshape(len(x), n, h, w)[:, :c_out]


def residual(weight, q, bias, x):
    sums = correlation(weight)
    if q is None:
        t = np.full(len(weight), 1 / sums.sum(1).max())
    else:
        t = 1 / (sums * np.exp(q[None, :] - q[:, None])).sum(1)
    _, c, h, w = x.shape
    m = dense(weight, h, w)
    inner = np.maximum((m @ x.reshape(len(x), -1).T).T + np.repeat(bias, h * w), 0) * np.repeat(t, h * w)
    return x - 2 * (m.T @ inner.T).T.reshape(x.shape)


def put(**values):
    for name, value in values.items():
        arrays[name] = np.ascontiguousarray(value, dtype=np.float64)


for case, (c_out, c_in, k) in {"tall": (5, 3, 3), "wide": (3, 4, 2)}.items():
    parameter = rng.standard_normal((c_out, c_in, k, k))
    put(**{f"aol_{case}_parameter": parameter, f"aol_{case}_weight": aol(parameter)})

for case, (n_out, n_in) in {"square": (6, 6), "tall": (7, 4), "wide": (3, 8)}.items():
    n = max(n_out, n_in)
    parameter = rng.standard_normal((n, n // 2))
    put(**{f"bro_{case}_parameter": parameter, f"bro_{case}_weight": bro(parameter, n_out, n_in)})

# name: c_in, c_out, k, stride, dilation, h, w, inner stride, inner channels
AOC = {
    "strided": (3, 5, 4, 2, 1, 6, 8, 2, 3),
    "expanding": (2, 9, 3, 2, 1, 4, 6, 2, 2),
    "dilated": (3, 4, 3, 2, 3, 8, 10, 2, 3),
    "coarse": (2, 6, 2, 2, 1, 4, 6, 2, 2),
}
for case, (c_in, c_out, k, s, d, h, w, t, inner) in AOC.items():
    m = k - t + 1
    n = max(c_in, inner)
    convolution = rng.standard_normal((1, 2 * m - 1, n, n)) if m > 1 else None
    frame = rng.standard_normal((1, c_out, inner * t * t))
    kernel = aoc(None if convolution is None else convolution[0], frame[0], c_in, c_out, inner, t)
    q = -(-(d * (k - 1) + 1) // s)
    matrix = dense(kernel, h, w, s, d, s * (q // 2))
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert np.abs(gram - np.eye(len(gram))).max() < 1e-12, case
    x = rng.standard_normal((2, c_in, h, w))
    y = apply(matrix, x, c_out, h // s, w // s)
    if convolution is not None:
        put(**{f"aoc_{case}_kernel": convolution})
    put(**{f"aoc_{case}_frame": frame, f"aoc_{case}_input": x, f"aoc_{case}_output": y})

for case, (c_in, c_out, k, h, w) in {"square": (3, 3, 3, 4, 5), "tall": (2, 5, 2, 3, 4), "wide": (4, 2, 3, 6, 3)}.items():
    x = rng.standard_normal((2, c_in, h, w))
    weight, alpha = rng.standard_normal((c_out, c_in, k, k)), rng.standard_normal(1) + 3
    scaled = alpha * weight / np.sqrt((weight**2).sum())
    put(**{f"{case}_input": x, f"cayley_{case}_weight": weight, f"cayley_{case}_alpha": alpha})
    put(**{f"cayley_{case}_output": filtered(cayley(transfer(scaled, h, w)), x)})
    matrices = np.zeros((h, w, c_out, c_in), complex)
    for p in range(h):
        for r in range(w):
            matrices[p, r] = polar(transfer(weight, h, w)[p, r])
    put(**{f"lot_{case}_output": filtered(matrices, x)})
    n = max(c_in, c_out)
    v = rng.standard_normal((n, n // 2, k, k))
    put(**{f"bro_conv_{case}_weight": v, f"bro_conv_{case}_output": filtered(bro(transfer(v, h, w), c_out, c_in), x)})
    m = rng.standard_normal((n, n, 3, 3))
    put(**{f"soc_{case}_weight": m, f"soc_{case}_output": soc(m, x, 6, c_out)})
    inner, q, bias = rng.standard_normal((5, c_in, k, k)), rng.standard_normal(5), rng.standard_normal(5)
    put(**{f"sll_{case}_weight": inner, f"sll_{case}_q": q, f"sll_{case}_bias": bias})
    put(**{f"sll_{case}_output": residual(inner, q, bias, x), f"cpl_{case}_output": residual(inner, None, bias, x)})

for case, (c_in, c_out, k, h, w) in {"square": (3, 3, 3, 4, 5), "tall": (2, 5, 2, 3, 4), "wide": (4, 2, 3, 6, 3)}.items():
    x = arrays[f"{case}_input"]
    weight, alpha = rng.standard_normal((c_out + c_in, c_out, k, k)), rng.standard_normal(1) + 3
    psi, bias = rng.standard_normal(c_out), rng.standard_normal(c_out)
    both = cayley(transfer(alpha * weight / np.sqrt((weight**2).sum()), h, w))
    at, b = both[..., :c_out, :], star(both[..., c_out:, :])
    scale = np.exp(psi)[None, :, None, None]
    inner = np.sqrt(2) / scale * filtered(b, x) + bias[None, :, None, None]
    # the layer's bias holds the publication's diagonal
    put(**{f"sandwich_{case}_weight": weight, f"sandwich_{case}_alpha": alpha, f"sandwich_{case}_bias": np.exp(psi) * bias})
    put(**{f"sandwich_{case}_output": np.sqrt(2) * filtered(at, scale * np.maximum(inner, 0))})

np.savez(Path(__file__).with_name("new_layers.npz"), **arrays)
print(len(arrays), "arrays")
