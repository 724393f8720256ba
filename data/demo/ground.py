"""Primitives of the demo drawings: textured ground, objects that cast shadows, roads, water, trees, light and noise.

Everything is drawn at twice the final resolution in a unit square, `x` to the right and `y` down, and reduced at the
end. All randomness comes from the generator that the canvas was made with.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Colour] = {  # of the objects that captions name
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
WATER, SEA, ASPHALT, CONCRETE = (44, 84, 108), (40, 100, 134), (84, 85, 90), (172, 170, 164)
SUPERSAMPLING = 2


def shade(colour: Sequence[float], factor: float) -> Colour:
    """A colour made darker or lighter."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in colour)


class Canvas:
    """
    A picture in the making.

    Args:
        size (`int`): Final height and width in pixels.
        rng (`np.random.Generator`): Source of all randomness.
        ground (`Colour`): Colour of the ground.
        roughness (`float`, *optional*, defaults to 0.12): Relative strength of its texture.
    """

    def __init__(self, size: int, rng: np.random.Generator, ground: Colour, roughness: float = 0.12):
        self.rng = rng
        self.pixels = size * SUPERSAMPLING
        angle = rng.uniform(0, 2 * math.pi)
        self.sun = (math.cos(angle), math.sin(angle))  # direction in which shadows fall
        self.texture = self.noise(self.pixels)
        self.image = Image.new("RGB", (self.pixels, self.pixels))
        self.draw = ImageDraw.Draw(self.image)
        self.fill_textured(ground, roughness)

    def noise(self, pixels: int, cells: Sequence[int] = (3, 7, 15, 40, 96)) -> np.ndarray:
        """Value noise of several octaves, `(pixels, pixels)`, with mean about 0 and values within about ±1."""
        total = np.zeros((pixels, pixels), dtype=np.float32)
        for octave, count in enumerate(cells):
            coarse = Image.fromarray(self.rng.standard_normal((count, count), dtype=np.float32))
            total += np.asarray(coarse.resize(total.shape, Image.Resampling.BILINEAR)) * 0.75**octave
        return total / 2

    def fill_textured(self, colour: Colour, roughness: float, mask: Image.Image | None = None) -> None:
        """Fills the picture, or the white part of a mask, with a textured colour."""
        surface = np.array(colour, dtype=np.float32) * (1 + roughness * self.texture[..., None])
        self.image.paste(Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8)), mask=mask)

    def px(self, points: Sequence[Point]) -> list[Point]:
        """Unit coordinates to pixels."""
        return [(x * self.pixels, y * self.pixels) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour, height: float = 0.0) -> None:
        """A filled polygon that casts a shadow of the given length."""
        if height:
            shadow = [(x + self.sun[0] * height, y + self.sun[1] * height) for x, y in points]
            hull = [*points, *shadow]
            self.draw.polygon(self.px(convex_hull(hull)), fill=self.shadow_colour(points))
        self.draw.polygon(self.px(points), fill=colour)

    def shadow_colour(self, points: Sequence[Point]) -> Colour:
        """What the ground beside an object looks like in its shadow."""
        x, y = (min(max(sum(p[axis] for p in points) / len(points), 0), 0.999) for axis in (0, 1))
        return shade(self.image.getpixel((int(x * self.pixels), int(y * self.pixels))), 0.45)

    def rectangle(
        self, centre: Point, width: float, depth: float, angle: float, colour: Colour, height: float = 0.0
    ) -> None:
        """A rectangle turned by `angle` (radians)."""
        self.polygon(turned_rectangle(centre, width, depth, angle), colour, height)

    def disc(self, centre: Point, radius: float, colour: Colour, height: float = 0.0) -> None:
        """A disc."""
        if not height:
            (left, top), (right, bottom) = self.px(
                [(centre[0] - radius, centre[1] - radius), (centre[0] + radius, centre[1] + radius)]
            )
            self.draw.ellipse((left, top, right, bottom), fill=colour)
            return
        turns = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        points = [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns]
        self.polygon(points, colour, height)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line with round joints."""
        self.draw.line(self.px(points), fill=colour, width=max(1, round(width * self.pixels)), joint="curve")
        if width > 0.1:  # Pillow leaves gaps at the joints of wide lines
            for point in points:
                self.disc(point, width / 2, colour)

    def dashes(self, points: Sequence[Point], width: float, colour: Colour, step: int = 2) -> None:
        """Every `step`-th stretch of a line that was sampled densely."""
        for start in range(0, len(points) - 1, step):
            self.line(points[start : start + 2], width, colour)

    def tree(self, centre: Point, radius: float, colour: Colour = (52, 92, 44)) -> None:
        """A crown from above: shadow, dark rim, lit top."""
        crown = shade(colour, self.rng.uniform(0.8, 1.25))
        self.disc(
            (centre[0] + self.sun[0] * radius * 0.6, centre[1] + self.sun[1] * radius * 0.6), radius, shade(crown, 0.4)
        )
        self.disc(centre, radius, shade(crown, 0.8))
        lit = (centre[0] - self.sun[0] * radius * 0.3, centre[1] - self.sun[1] * radius * 0.3)
        self.disc(lit, radius * 0.6, shade(crown, 1.25))

    def house(
        self, centre: Point, width: float, depth: float, angle: float, colour: Colour, height: float = 0.03
    ) -> None:
        """A gable roof: two slopes, one in the light."""
        self.rectangle(centre, width, depth, angle, shade(colour, 0.82), height)
        side = (centre[0] - math.sin(angle) * depth / 4, centre[1] + math.cos(angle) * depth / 4)
        self.rectangle(side, width, depth / 2, angle, shade(colour, 1.1))

    def lattice(self, count: int, box: tuple[float, float, float, float], jitter: float = 0.2) -> list[Point]:
        """`count` places that keep their distance: cells of the coarsest grid that has enough, jittered."""
        left, top, right, bottom = box
        columns = max(1, math.ceil(math.sqrt(count * (right - left) / (bottom - top))))
        rows = math.ceil(count / columns)
        cells = self.rng.permutation(columns * rows)[:count]
        width, height = (right - left) / columns, (bottom - top) / rows
        return [
            (
                left + (cell % columns + 0.5 + self.rng.uniform(-jitter, jitter)) * width,
                top + (cell // columns + 0.5 + self.rng.uniform(-jitter, jitter)) * height,
            )
            for cell in sorted(cells)
        ]

    def finish(self, size: int) -> Image.Image:
        """The picture as the satellite delivers it: any orientation, exposure, white balance, haze and noise."""
        image = self.image.resize((size, size), Image.Resampling.BOX)
        image = image.transpose(list(Image.Transpose)[self.rng.integers(7)])
        pixels = np.asarray(image, dtype=np.float32)
        exposure = self.rng.uniform(0.85, 1.12) * self.rng.uniform(0.96, 1.04, 3)
        pixels = pixels * (1 + 0.05 * self.noise(size, (12, size))[..., None]) * exposure.astype(np.float32)
        haze = self.rng.uniform(0, 0.12)
        pixels = pixels * (1 - haze) + haze * np.array([205, 212, 222], dtype=np.float32)
        pixels = pixels + 3 * self.rng.standard_normal(pixels.shape, dtype=np.float32)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def turned_rectangle(centre: Point, width: float, depth: float, angle: float) -> list[Point]:
    """Corners of a rectangle turned by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    corners = ((-width / 2, -depth / 2), (width / 2, -depth / 2), (width / 2, depth / 2), (-width / 2, depth / 2))
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in corners]


def convex_hull(points: Sequence[Point]) -> list[Point]:
    """Convex hull, by Andrew's monotone chain."""

    def half(ordered: Sequence[Point]) -> list[Point]:
        chain: list[Point] = []
        for x, y in ordered:
            while len(chain) > 1 and (chain[-1][0] - chain[-2][0]) * (y - chain[-2][1]) <= (
                chain[-1][1] - chain[-2][1]
            ) * (x - chain[-2][0]):
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    ordered = sorted(points)
    return half(ordered) + half(ordered[::-1])


def wave(
    start: Point, end: Point, bend: float, turns: float = 1.0, phase: float = 0.0, count: int = 40
) -> list[Point]:
    """A line from `start` to `end` that swings to both sides by `bend`."""
    length = math.dist(start, end)
    normal = ((start[1] - end[1]) / length, (end[0] - start[0]) / length)
    points = []
    for t in np.linspace(0, 1, count):
        swing = bend * math.sin(2 * math.pi * turns * t + phase)
        points.append(
            (
                start[0] + (end[0] - start[0]) * t + normal[0] * swing,
                start[1] + (end[1] - start[1]) * t + normal[1] * swing,
            )
        )
    return points
