"""Draw the surroundings of a demo scene, in the lower quarter of the canvas."""

import math
from collections.abc import Callable

import numpy as np

from rsmclip.data.demo.ground import GRASS, MEADOW, SOIL, WATER, Canvas, shade, wave

EDGE = 0.76  # y coordinate where the scene ends


def forest(canvas: Canvas) -> None:
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, (44, 62, 36))
    for x, y in canvas.lattice(70, (-0.02, EDGE + 0.01, 1.02, 1.03), 0.45):
        canvas.tree((x, y), canvas.rng.uniform(0.034, 0.046), (46, 88, 42))


def river(canvas: Canvas) -> None:
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, shade(GRASS, 1.05))
    course = wave((-0.1, 0.885), (1.1, 0.885), 0.018, 1.2, canvas.rng.uniform(0, 6))
    canvas.line(course, 0.17, (188, 170, 124))
    canvas.line(course, 0.135, shade(WATER, canvas.rng.uniform(0.95, 1.15)))


def lake(canvas: Canvas) -> None:
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, shade(GRASS, 1.05))
    x = canvas.rng.uniform(0.35, 0.65)
    turns = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    wobble = 1 + 0.08 * np.sin(3 * turns + canvas.rng.uniform(0, 6))
    shore = [(x + 0.27 * w * math.cos(t), 0.885 + 0.095 * w * math.sin(t)) for t, w in zip(turns, wobble, strict=True)]
    canvas.polygon([(x + (px - x) * 1.08, 0.885 + (py - 0.885) * 1.15) for px, py in shore], (150, 146, 104))
    canvas.polygon(shore, (30, 76, 150))


def road(canvas: Canvas) -> None:
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, shade(SOIL, 1.1))
    canvas.rectangle((0.5, 0.885), 1.2, 0.15, 0, (70, 71, 76))
    for y in (0.822, 0.948):
        canvas.line([(-0.1, y), (1.1, y)], 0.01, (226, 226, 220))
    canvas.dashes(wave((-0.1, 0.885), (1.1, 0.885), 0, count=20), 0.016, (240, 236, 200))


def meadow(canvas: Canvas) -> None:
    canvas.rectangle((0.5, 0.89), 1.2, 0.26, 0, shade(MEADOW, 1.12))
    for x, y in canvas.lattice(50, (0, EDGE, 1, 1), 0.5):
        tint = [(228, 222, 120), (236, 236, 226), (120, 156, 70)][canvas.rng.integers(3)]
        canvas.disc((x, y), 0.01, tint)


def railway(canvas: Canvas) -> None:
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, (132, 118, 104))
    for y in (0.835, 0.935):
        for x in np.arange(0, 1.02, 0.042):
            canvas.rectangle((x, y), 0.018, 0.078, 0, (72, 56, 46))
        for rail in (-0.022, 0.022):
            canvas.line([(-0.1, y + rail), (1.1, y + rail)], 0.012, (196, 198, 204))


BESIDES: dict[str, Callable[[Canvas], None]] = {
    "forest": forest,
    "river": river,
    "lake": lake,
    "road": road,
    "meadow": meadow,
    "railway": railway,
}
