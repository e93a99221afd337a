"""Pixels that Pillow's operations give at level 0.3 and -0.3: `python pillow.py > pillow.json`."""

import base64
import json
import math

import PIL
from PIL import Image, ImageEnhance, ImageOps

SHAPES = [(3, 13, 16), (1, 9, 7), (1, 2, 5)]


def pixels(shape):
    """Smooth ramps with an irregular part, none of whose channels fills [0, 255]."""
    c, h, w = shape
    value = lambda k, y, x: 20 + 11 * k + (7 * x + 5 * y * (k + 1) + (x * x * 31 + y * 17 * x + 13 * k) % 97) % 190
    return bytes(value(k, y, x) for k in range(c) for y in range(h) for x in range(w))


def picture(shape, values):
    c, h, w = shape
    planes = [Image.frombytes("L", (w, h), values[k * h * w:(k + 1) * h * w]) for k in range(c)]
    return planes[0] if c == 1 else Image.merge("RGB", planes)


def values(image):
    return b"".join(plane.tobytes() for plane in image.split())


def affine(image, numbers):
    return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.NEAREST)


def operations(image, level):
    w, h = image.size
    away = lambda side: math.trunc(150 / 331 * level * side)
    factor = 1 + 0.9 * level
    return {
        "ShearX": affine(image, (1, 0.3 * level, 0, 0, 1, 0)),
        "ShearY": affine(image, (1, 0, 0, 0.3 * level, 1, 0)),
        "TranslateX": affine(image, (1, 0, -away(w), 0, 1, 0)),
        "TranslateY": affine(image, (1, 0, 0, 0, 1, -away(h))),
        "Rotate": image.rotate(30 * level, Image.Resampling.NEAREST),
        "Brightness": ImageEnhance.Brightness(image).enhance(factor),
        "Colour": ImageEnhance.Color(image).enhance(factor),
        "Contrast": ImageEnhance.Contrast(image).enhance(factor),
        "Sharpness": ImageEnhance.Sharpness(image).enhance(factor),
        "Posterize": ImageOps.posterize(image, 8 - math.floor(4 * abs(level) + 0.5)),
        "Solarize": ImageOps.solarize(image, 255 * (1 - abs(level))),
        "AutoContrast": ImageOps.autocontrast(image),
        "Equalize": ImageOps.equalize(image),
    }


text = lambda data: base64.b64encode(data).decode()
cases = []
for shape in SHAPES:
    before = pixels(shape)
    for level in (0.3, -0.3):
        after = operations(picture(shape, before), level)
        results = {name: text(values(image)) for name, image in after.items()}
        cases.append({"shape": shape, "level": level, "pixels": text(before), "results": results})
print(json.dumps({"pillow": PIL.__version__, "cases": cases}, indent=1))
