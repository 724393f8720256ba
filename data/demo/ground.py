"""Primitives of the demo drawings: textured ground, objects with shadows, lines, trees, houses, light and noise.

Coordinates are in a unit square, `x` to the right and `y` down. Pictures are drawn at twice the final resolution and
reduced at the end. All random numbers come from the generator of the canvas.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

COLORS: dict[str, Color] = {  # of the counted objects; the keys are the words in English captions
    "white": (240, 240, 236),
    "grey": (116, 118, 124),
    "black": (34, 35, 40),
    "red": (196, 52, 40),
    "blue": (42, 92, 190),
    "green": (66, 132, 48),
    "yellow": (224, 192, 70),
    "brown": (126, 84, 48),
}
GRASS, MEADOW, SOIL, SAND = (98, 118, 70), (142, 172, 84), (150, 126, 96), (214, 196, 150)
WATER, ASPHALT, CONCRETE = (44, 84, 108), (84, 85, 90), (172, 170, 164)
SUPERSAMPLING = 2


def shade(color: Sequence[float], factor: float) -> Color:
    """Return a color multiplied by `factor`."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in color)


class Canvas:
    """An unfinished picture, on ground with a texture of relative strength `roughness`."""

    def __init__(self, size: int, rng: np.random.Generator, ground: Color, roughness: float):
        self.rng = rng
        self.pixels = size * SUPERSAMPLING
        angle = rng.uniform(0, 2 * math.pi)
        self.sun = (math.cos(angle), math.sin(angle))  # direction in which shadows fall
        self.texture = self.noise(self.pixels)
        surface = np.array(ground, dtype=np.float32) * (1 + roughness * self.texture[..., None])
        self.image = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
        self.draw = ImageDraw.Draw(self.image)

    def noise(self, pixels: int, cells: Sequence[int] = (3, 7, 15, 40, 96)) -> np.ndarray:
        """Return value noise of several octaves, `(pixels, pixels)`, mostly within ±1."""
        total = np.zeros((pixels, pixels), dtype=np.float32)
        for octave, count in enumerate(cells):
            coarse = Image.fromarray(self.rng.standard_normal((count, count), dtype=np.float32))
            total += np.asarray(coarse.resize(total.shape, Image.Resampling.BILINEAR)) * 0.75**octave
        return total / 2

    def px(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.pixels, y * self.pixels) for x, y in points]

    def polygon(self, points: Sequence[Point], color: Color, height: float = 0.0) -> None:
        """Draw a filled polygon with a shadow of length `height`."""
        if height:
            shadow = [(x + self.sun[0] * height, y + self.sun[1] * height) for x, y in points]
            x, y = (min(max(sum(p[axis] for p in points) / len(points), 0), 0.999) for axis in (0, 1))
            ground = self.image.getpixel((int(x * self.pixels), int(y * self.pixels)))
            self.draw.polygon(self.px(convex_hull([*points, *shadow])), fill=shade(ground, 0.45))
        self.draw.polygon(self.px(points), fill=color)

    def rectangle(
        self, center: Point, width: float, depth: float, angle: float, color: Color, height: float = 0.0
    ) -> None:
        """Draw a rectangle rotated by `angle` (radians)."""
        cos, sin = math.cos(angle), math.sin(angle)
        corners = ((-width / 2, -depth / 2), (width / 2, -depth / 2), (width / 2, depth / 2), (-width / 2, depth / 2))
        points = [(center[0] + x * cos - y * sin, center[1] + x * sin + y * cos) for x, y in corners]
        self.polygon(points, color, height)

    def disc(self, center: Point, radius: float, color: Color, height: float = 0.0) -> None:
        """Draw a disc, with a shadow if it has a height."""
        x, y = center
        if not height:
            self.draw.ellipse(self.px([(x - radius, y - radius), (x + radius, y + radius)]), fill=color)
            return
        turns = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        self.polygon([(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns], color, height)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a line with round joints."""
        self.draw.line(self.px(points), fill=color, width=max(1, round(width * self.pixels)), joint="curve")
        if width > 0.1:  # Pillow leaves gaps at the joints of wide lines
            for point in points:
                self.disc(point, width / 2, color)

    def dashes(self, points: Sequence[Point], width: float, color: Color, step: int = 2) -> None:
        """Draw every `step`-th segment of a line."""
        for start in range(0, len(points) - 1, step):
            self.line(points[start : start + 2], width, color)

    def tree(self, center: Point, radius: float, color: Color = (52, 92, 44)) -> None:
        """Draw a crown from above: shadow, dark rim, lit top."""
        crown = shade(color, self.rng.uniform(0.8, 1.25))
        shadow = (center[0] + self.sun[0] * radius * 0.6, center[1] + self.sun[1] * radius * 0.6)
        self.disc(shadow, radius, shade(crown, 0.4))
        self.disc(center, radius, shade(crown, 0.8))
        lit = (center[0] - self.sun[0] * radius * 0.3, center[1] - self.sun[1] * radius * 0.3)
        self.disc(lit, radius * 0.6, shade(crown, 1.25))

    def house(self, center: Point, width: float, depth: float, angle: float, color: Color, height: float) -> None:
        """Draw a gable roof: two slopes, one of them lit."""
        self.rectangle(center, width, depth, angle, shade(color, 0.82), height)
        side = (center[0] - math.sin(angle) * depth / 4, center[1] + math.cos(angle) * depth / 4)
        self.rectangle(side, width, depth / 2, angle, shade(color, 1.1))

    def lattice(self, count: int, box: tuple[float, float, float, float], jitter: float = 0.2) -> list[Point]:
        """Return `count` places in random cells of a grid over the box, each moved by `jitter` of a cell at most."""
        left, top, right, bottom = box
        columns = max(1, math.ceil(math.sqrt(count * (right - left) / (bottom - top))))
        rows = math.ceil(count / columns)
        cells = self.rng.permutation(columns * rows)[:count]
        width, height = (right - left) / columns, (bottom - top) / rows
        places = []
        for row, column in (divmod(cell, columns) for cell in sorted(cells)):
            x = left + (column + 0.5 + self.rng.uniform(-jitter, jitter)) * width
            places.append((x, top + (row + 0.5 + self.rng.uniform(-jitter, jitter)) * height))
        return places

    def finish(self, size: int) -> Image.Image:
        """Return the picture with random orientation, exposure, white balance, haze and noise."""
        image = self.image.resize((size, size), Image.Resampling.BOX)
        image = image.transpose(list(Image.Transpose)[self.rng.integers(7)])
        pixels = np.asarray(image, dtype=np.float32)
        exposure = self.rng.uniform(0.85, 1.12) * self.rng.uniform(0.96, 1.04, 3)
        pixels = pixels * (1 + 0.05 * self.noise(size, (12, size))[..., None]) * exposure.astype(np.float32)
        haze = self.rng.uniform(0, 0.12)
        pixels = pixels * (1 - haze) + haze * np.array([205, 212, 222], dtype=np.float32)
        pixels = pixels + 3 * self.rng.standard_normal(pixels.shape, dtype=np.float32)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def convex_hull(points: Sequence[Point]) -> list[Point]:
    """Return the convex hull, by Andrew's monotone chain."""

    def half(ordered: Sequence[Point]) -> list[Point]:
        chain: list[Point] = []
        for x, y in ordered:
            while len(chain) > 1:
                (x0, y0), (x1, y1) = chain[-2:]
                if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    ordered = sorted(points)
    return half(ordered) + half(ordered[::-1])


def wave(
    start: Point, end: Point, bend: float, turns: float = 1.0, phase: float = 0.0, count: int = 40
) -> list[Point]:
    """Return `count` points of a sine wave of amplitude `bend` from `start` to `end`."""
    (x0, y0), (x1, y1) = start, end
    length = math.dist(start, end)
    points = []
    for t in np.linspace(0, 1, count):
        swing = bend * math.sin(2 * math.pi * turns * t + phase)
        x, y = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
        points.append((x + (y0 - y1) / length * swing, y + (x1 - x0) / length * swing))
    return points
