"""Draws the figures of the book, as SVG files in src/figures: python docs/book/figures.py"""

import math
from pathlib import Path

OUT = Path(__file__).parent / "src/figures"
INK, SOFT, BLUE, RED, GREEN, GREY = "#222", "#888", "#2b6cb0", "#c05621", "#2f855a", "#e8e8e8"


class Drawing:
    """A white sheet; text is centred on its point unless `anchor` says otherwise."""

    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def line(self, x1, y1, x2, y2, colour=INK, width=1.5, arrow=False, dash=""):
        end = f' marker-end="url(#{colour[1:]})"' if arrow else ""
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"{end}{dash}/>')

    def box(self, x, y, width, height, fill="none", stroke=INK):
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{stroke}"/>')

    def path(self, points, colour):
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="2"/>')

    def text(self, x, y, words, size=14, colour=INK, anchor="middle", italic=False):
        style = ' font-style="italic"' if italic else ""
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{style}>{words}</text>')

    def save(self, name):
        heads = "".join(
            f'<marker id="{c[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{c}"/></marker>'
            for c in (INK, SOFT, BLUE, RED, GREEN)
        )
        body = "\n".join(self.parts)
        (OUT / name).write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" font-family="sans-serif" role="img">\n'
            f"<title>{self.title}</title>\n<defs>{heads}</defs>\n"
            f'<rect width="{self.width}" height="{self.height}" fill="#fff"/>\n{body}\n</svg>\n'
        )


def grid(d, x, y, side, n, marked, label=""):
    """n x n pixels with some of them marked: {(row, column): colour}."""
    for i in range(n):
        for j in range(n):
            d.box(x + j * side, y + i * side, side, side, marked.get((i, j), "#fff"), SOFT)
    if label:
        d.text(x + n * side / 2, y + n * side + 20, label)


def shifts():
    """A convolution is a sum of shifted copies of the image, each multiplied by the matrix of its tap."""
    d = Drawing(760, 230, "A convolution as a sum of shifts, each multiplied by the matrix of its tap")
    n, side = 4, 20
    shape = [(1, 1), (1, 2), (2, 1)]
    offsets = [(0, 0), (0, 1), (1, 0), (1, 1)]
    grid(d, 20, 50, side, n, {at: BLUE for at in shape}, "image v")
    d.text(125, 95, "→", 22)
    for k, (di, dj) in enumerate(offsets):
        x = 150 + 152 * k
        moved = {((i + di) % n, (j + dj) % n): BLUE for i, j in shape}
        d.text(x + 22, 95, f"X[{di},{dj}] ·", 14, RED)
        grid(d, x + 50, 50, side, n, moved, f"shifted by ({di}, {dj})")
        if k < 3:
            d.text(x + 143, 95, "+", 18)
    d.text(380, 190, "(X * v)[i, j] = Σ X[a, b] v[i − a, j − b]", 16, italic=True)
    d.text(380, 215, "X[a, b] is a matrix: it mixes the channels of a pixel.  What leaves on one side enters on the other.", 13, SOFT)
    d.save("shifts.svg")


def arrow(d, x, y, vector, colour, scale=30):
    d.line(x, y, x + vector[0] * scale, y - vector[1] * scale, colour, 2.2, arrow=True)


def projector():
    """The paper's Figure 1: [P  I-P] on three pixels of two channels; P projects on the horizontal axis."""
    d = Drawing(800, 350, "The orthogonal convolution [P  I−P] on a signal of three pixels and two channels")
    signal = [(0.8, 0.9), (-0.7, 0.6), (0.9, -0.5)]
    side, left = 100, 170
    kept = [(a, 0) for a, _ in signal]
    moved = [(0, signal[i - 1][1]) for i in range(3)]
    rows = [("v", signal, INK), ("P v, where it was", kept, BLUE), ("(I − P) v, one pixel on", moved, RED)]
    for r, (name, _, colour) in enumerate(rows + [("sum", None, GREEN)]):
        y = 10 + r * 84
        d.text(left - 15, y + 42, name, 14, colour, "end")
        for i in range(3):
            x = left + i * side
            d.box(x, y, side, 72, "#fff", SOFT)
            cx, cy = x + side / 2, y + 38
            if r < 3:
                arrow(d, cx, cy, rows[r][1][i], colour)
            else:
                arrow(d, cx, cy, kept[i], BLUE)
                arrow(d, cx, cy, moved[i], RED)
                arrow(d, cx, cy, (kept[i][0], moved[i][1]), GREEN)
    d.text(500, 60, "Three pixels, an arrow of two channels in each.", 13, SOFT, "start")
    d.text(500, 144, "P keeps the horizontal part.", 13, SOFT, "start")
    d.text(500, 228, "I − P keeps the vertical part; it moves on,", 13, SOFT, "start")
    d.text(500, 246, "from the last pixel to the first.", 13, SOFT, "start")
    d.text(500, 305, "Every part is there once, and the parts", 13, SOFT, "start")
    d.text(500, 323, "of a pixel are orthogonal: the norm is kept.", 13, SOFT, "start")
    d.save("projector.svg")


def block():
    """Equation (5): each factor adds a row or a column of taps."""
    d = Drawing(760, 250, "A 3 x 3 kernel as the block convolution of H and four projector pairs")
    factors = [("H", 1, 1), ("[P₁; I−P₁]", 2, 1), ("[Q₁  I−Q₁]", 1, 2), ("[P₂; I−P₂]", 2, 1), ("[Q₂  I−Q₂]", 1, 2)]
    products = [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]
    side = 24
    for k, (name, rows, columns) in enumerate(factors):
        x = 90 + k * 145
        colour = INK if k == 0 else BLUE if columns == 1 else RED
        d.text(x, 22, name, 14, colour)
        for i in range(rows):
            for j in range(columns):
                d.box(x - columns * side / 2 + j * side, 36 + i * side, side, side, GREY if k == 0 else "#dbeafe" if columns == 1 else "#fde4d3", colour)
        if k < 4:
            d.text(x + 72, 58, "□", 18)
        h, w = products[k]
        top = 130
        for i in range(h):
            for j in range(w):
                d.box(x - w * side / 2 + j * side, top + i * side, side, side, "#dff3e4", GREEN)
        d.text(x, top + 95, f"{h} x {w}", 13, GREEN)
        d.line(x, 92, x, 122, SOFT, 1, arrow=True)
    d.text(380, 245, "Above: the factors.  Below: the product of all factors so far.  A cell is a matrix of channels by channels.", 13, SOFT)
    d.save("block.svg")


def axes(d, x, y, width, height, marks_x, marks_y):
    d.line(x, y, x + width, y)
    d.line(x, y, x, y - height)
    for at, name in marks_x:
        d.text(x + at * width, y + 18, name, 12)
    for at, name in marks_y:
        d.line(x - 4, y - at * height, x, y - at * height)
        d.text(x - 8, y - at * height + 4, name, 12, anchor="end")


def gradients():
    """Arithmetic, not a measurement: what layers that scale every gradient by one factor leave of its norm."""
    d = Drawing(620, 300, "Gradient norm against depth, for four gains of a layer")
    x, y, width, height, depth = 60, 250, 420, 220, 20
    axes(d, x, y, width, height, [(k / 20, str(k)) for k in range(0, 21, 5)], [(0, "0"), (0.5, "0.5"), (1, "1")])
    for factor, colour, name in [(1, GREEN, "1: orthogonal"), (0.95, BLUE, "0.95"), (0.8, RED, "0.8"), (0.5, SOFT, "0.5")]:
        d.path([(x + k / depth * width, y - factor**k * height) for k in range(depth + 1)], colour)
        at = depth if factor > 0.6 else 3
        d.text(x + at / depth * width + 8, y - factor**at * height + (2 if at == depth else -2), name, 13, colour, "start")
    d.text(x + width / 2, 290, "layers that the gradient has passed", 13)
    d.text(x + 6, 18, "norm of the gradient", 13, anchor="start")
    d.save("gradients.svg")


# docs/results/large/README.md, Figure 2: smallest, mean and largest singular value, at the start and at the end
SPECTRA = [
    ("OSSN", (0.2716, 0.5602, 0.8785), (0.1589, 0.3500, 1.0000)),
    ("RKO", (0.2684, 0.4880, 0.7037), (0.0042, 0.4435, 0.9996)),
    ("SVCM", (0.2738, 0.5599, 0.8762), (0.2795, 0.5935, 1.0000)),
    ("BCOP", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
]


def spectra():
    """The paper's Figure 2 in short: where the singular values of a trained convolution lie."""
    d = Drawing(620, 290, "Singular values of the second convolution of Large, before and after four epochs on CIFAR-10")
    x, y, width = 90, 230, 480
    for at in (0, 0.25, 0.5, 0.75, 1):
        d.line(x + at * width, 20, x + at * width, y, "#ddd", 1)
        d.text(x + at * width, y + 18, f"{at:g}", 12)
    for k, (name, start, end) in enumerate(SPECTRA):
        top = 42 + k * 50
        d.text(x - 12, top + 14, name, 14, anchor="end")
        for row, (values, colour) in enumerate([(start, SOFT), (end, BLUE)]):
            at = top + row * 18
            low, mean, high = (x + value * width for value in values)
            d.line(low, at, high, at, colour, 3)
            d.parts.append(f'<circle cx="{mean:.1f}" cy="{at}" r="5" fill="{colour}"/>')
    d.text(x + width / 2, 270, "smallest to largest singular value; the dot is the mean", 13)
    d.text(x + 4, 14, "before training", 12, SOFT, "start")
    d.text(x + 110, 14, "after 4 epochs", 12, BLUE, "start")
    d.save("spectra.svg")


def margin():
    """From a margin to a radius: the difference of two logits falls by at most √2 for each unit of distance."""
    d = Drawing(620, 280, "The margin falls at most with slope √2 L, so it is positive within margin / (√2 L)")
    x, y, width, height = 60, 230, 480, 190
    axes(d, x, y, width, height, [], [])
    foot = x + 330
    d.line(x, y - 160, foot, y, BLUE, 2)
    points = [(x + t, y - 160 + 160 * (t / 460) + 5 * math.sin(t / 45) * (t / 460)) for t in range(0, 461, 4)]
    d.path(points, GREEN)
    d.text(x + 8, y - 168, "margin(x)", 13, anchor="start")
    d.text(x + 150, y - 55, "slope −√2 L", 13, BLUE, "end")
    d.text(x + 300, y - 95, "a margin that a network may have", 13, GREEN, "start")
    d.line(x, y + 14, foot, y + 14, RED, 1.5, arrow=True)
    d.text((x + foot) / 2, y + 32, "radius = margin(x) / (√2 L)", 13, RED)
    d.text(x + width, y + 18, "distance from x", 13, anchor="end")
    d.save("margin.svg")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for draw in (shifts, projector, block, gradients, spectra, margin):
        draw()
