"""Draws a demo scene from above. The scene fills the upper three quarters of the canvas, what lies beside it the rest;
the finished picture is turned and mirrored at random."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsmclip.data.demo.ground import (
    ASPHALT,
    COLOURS,
    CONCRETE,
    GRASS,
    MEADOW,
    SAND,
    SEA,
    SOIL,
    WATER,
    Canvas,
    shade,
    turned_rectangle,
    wave,
)
from rsmclip.data.demo.scene import Scene

EDGE = 0.76  # the scene lies above, what is beside it below
FIELD = (0.04, 0.04, 0.96, EDGE - 0.04)  # box in which countable objects stand


def draw(scene: Scene, rng: np.random.Generator, size: int = 96) -> Image.Image:
    """
    Draws a scene.

    Args:
        scene ([`Scene`]):
            What is to be seen.
        rng (`np.random.Generator`):
            Draws everything that the scene leaves open; equal scenes give different pictures.
        size (`int`, *optional*, defaults to 96):
            Height and width in pixels.

    Returns:
        `PIL.Image.Image`: RGB.
    """
    ground, roughness, paint = PAINTERS[scene.kind]
    canvas = Canvas(size, rng, shade(ground, rng.uniform(0.9, 1.1)), roughness)
    paint(canvas, scene, COLOURS[scene.colour])
    BESIDES[scene.beside](canvas)
    return canvas.finish(size)


# ---------------------------------------------------------------------------------------------------- the scenes


def airport(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Runways with markings, an apron with a terminal, and planes on it."""
    rng = canvas.rng

    def runway(start, end):
        canvas.line([start, end], 0.085, shade(ASPHALT, 0.75))
        canvas.dashes(wave(start, end, 0, count=24), 0.012, (225, 225, 225))

    y = rng.uniform(0.09, 0.13)
    runway((-0.1, y), (1.1, y))
    if scene.variant == "two_runways":
        x = rng.uniform(0.08, 0.14)
        runway((x, -0.1), (x, EDGE + 0.1))
    canvas.rectangle((0.6, 0.47), 0.78, 0.5, 0, shade(CONCRETE, 1.1))
    canvas.rectangle((rng.uniform(0.5, 0.7), 0.69), 0.5, 0.07, 0, (118, 128, 150), 0.04)
    for x, y in canvas.lattice(scene.count, (0.23, 0.24, 0.97, 0.64), 0.08):
        plane(
            canvas,
            (x, y),
            rng.uniform(0.9, 1.0) * (0.11 if scene.count < 5 else 0.09),
            rng.uniform(0, 2 * math.pi),
            colour,
        )


def plane(canvas: Canvas, centre: tuple, length: float, angle: float, colour: tuple) -> None:
    """Fuselage, swept wings and tail, with a shadow."""
    outline = [
        (1, 0.1),
        (0.25, 0.14),
        (-0.25, 1),
        (-0.5, 1),
        (-0.15, 0.14),
        (-0.75, 0.1),
        (-0.95, 0.42),
        (-1.05, 0.42),
    ]
    outline += [(-0.95, 0)]
    outline += [(x, -y) for x, y in reversed(outline)]
    cos, sin = math.cos(angle), math.sin(angle)
    points = [(centre[0] + length * (x * cos - y * sin), centre[1] + length * (x * sin + y * cos)) for x, y in outline]
    canvas.polygon([(x + canvas.sun[0] * 0.02, y + canvas.sun[1] * 0.02) for x, y in points], (70, 70, 72))
    canvas.polygon(points, colour)


def harbour(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Water with a quay and piers, boats between them."""
    rng = canvas.rng
    canvas.rectangle((0.5, 0.03), 1.2, 0.16, 0, CONCRETE, 0.02)
    for _ in range(4):
        canvas.rectangle(
            (rng.uniform(0, 1), 0.03), rng.uniform(0.08, 0.16), 0.08, 0, shade(SOIL, rng.uniform(0.7, 1.2))
        )
    if scene.variant == "long_pier":
        x = rng.uniform(0.42, 0.58)
        canvas.rectangle((x, 0.36), 0.06, 0.62, 0, shade(CONCRETE, 0.95), 0.02)
        half = math.ceil(scene.count / 2)
        places = canvas.lattice(half, (0.04, 0.18, x - 0.07, 0.7), 0.1)
        places += canvas.lattice(scene.count - half, (x + 0.07, 0.18, 0.96, 0.7), 0.1)
    else:
        for x in np.linspace(0.1, 0.9, 5):
            canvas.rectangle((x, 0.19), 0.045, 0.2, 0, shade(CONCRETE, 0.95), 0.02)
        places = canvas.lattice(scene.count, (0.04, 0.34, 0.96, 0.72), 0.1)
    for place in places:
        boat(canvas, place, rng.uniform(0.07, 0.085), rng.uniform(0, 2 * math.pi), colour)


def boat(canvas: Canvas, centre: tuple, length: float, angle: float, colour: tuple) -> None:
    """A pointed hull with a deck, and its wake."""
    outline = [(1.1, 0), (0.5, 0.4), (-0.9, 0.38), (-0.9, -0.38), (0.5, -0.4)]
    cos, sin = math.cos(angle), math.sin(angle)
    points = [(centre[0] + length * (x * cos - y * sin), centre[1] + length * (x * sin + y * cos)) for x, y in outline]
    canvas.polygon(points, colour, 0.015)
    canvas.rectangle(
        (centre[0] - length * 0.25 * cos, centre[1] - length * 0.25 * sin),
        length * 0.7,
        length * 0.35,
        angle,
        shade(colour, 0.72),
    )


def dense_residential(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Rows of houses wall to wall along streets."""
    rng = canvas.rng
    curved = scene.variant == "curved_streets"
    bend, phase = (rng.uniform(0.07, 0.09), rng.uniform(0, 6)) if curved else (0.0, 0.0)
    rows = np.linspace(0.0, EDGE, 5)
    for y in rows:
        canvas.line(wave((-0.1, y), (1.1, y), bend, 1, phase), 0.045, shade(ASPHALT, 1.15))
    for upper, lower in itertools.pairwise(rows):
        for offset in (0.3, 0.7):
            street = wave(
                (0.0, upper + (lower - upper) * offset), (1.0, upper + (lower - upper) * offset), bend, 1, phase, 14
            )
            for (x0, y0), (x1, y1) in itertools.pairwise(street):
                angle = math.atan2(y1 - y0, x1 - x0)
                tint = shade(colour, rng.uniform(0.85, 1.15))
                canvas.house(((x0 + x1) / 2, (y0 + y1) / 2), rng.uniform(0.052, 0.062), 0.055, angle, tint, 0.015)


def sparse_residential(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """A few houses, drives, and either trees or lawns between them."""
    rng = canvas.rng
    places = canvas.lattice(scene.count, FIELD, 0.12)
    if scene.variant == "lawns":
        for x, y in places:
            canvas.rectangle(
                (x, y), rng.uniform(0.27, 0.3), rng.uniform(0.25, 0.28), rng.uniform(-0.2, 0.2), shade(MEADOW, 1.05)
            )
    else:
        for x, y in canvas.lattice(46, (0.0, 0.0, 1.0, EDGE), 0.4):
            if min(math.dist((x, y), place) for place in places) > 0.13:
                canvas.tree((x, y), rng.uniform(0.03, 0.042))
    for place in places:
        canvas.house(place, rng.uniform(0.14, 0.17), rng.uniform(0.1, 0.12), rng.uniform(0, math.pi), colour, 0.035)


def farmland(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Ploughed fields between hedges: strips side by side or squares."""
    rng = canvas.rng
    strips = scene.variant == "strips"
    columns = scene.count if strips else {2: 2, 3: 3, 4: 2, 5: 3, 6: 3}[scene.count]
    rows = 1 if strips else math.ceil(scene.count / columns)
    width, height = 0.98 / columns, (EDGE - 0.02) / rows
    if not strips:
        width = height = min(width, height)
    left, top = (1 - width * columns) / 2, (EDGE - height * rows) / 2
    for index in range(scene.count):
        centre = (left + (index % columns + 0.5) * width, top + (index // columns + 0.5) * height)
        tint = shade(colour, rng.uniform(0.85, 1.15))
        canvas.rectangle(centre, width * 0.9, height * 0.93, 0, tint)
        for offset in np.linspace(-0.42, 0.42, max(3, int(width * 30))):
            x = centre[0] + offset * width
            canvas.line([(x, centre[1] - height * 0.45), (x, centre[1] + height * 0.45)], 0.006, shade(tint, 0.85))


def circular_irrigation(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Centre-pivot circles in dry land."""
    rng = canvas.rng
    radius = {2: 0.23, 3: 0.16, 4: 0.165}[scene.count]
    for x, y in canvas.lattice(scene.count, (0.02, 0.03, 0.98, EDGE - 0.03), 0.03):
        tint = shade(colour, rng.uniform(0.88, 1.1))
        canvas.disc((x, y), radius, tint)
        start = rng.uniform(0, 2 * math.pi)
        if scene.variant == "sectors":
            for turn in (0, 2.1, 4.2):
                arc = np.linspace(start + turn, start + turn + 1.05, 8)
                points = [(x, y), *((x + radius * math.cos(t), y + radius * math.sin(t)) for t in arc)]
                canvas.polygon(points, shade(tint, 0.6))
        else:
            canvas.line([(x, y), (x + radius * math.cos(start), y + radius * math.sin(start))], 0.01, shade(tint, 1.3))


def forest(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Crowns everywhere, but for a path or a clearing."""
    rng = canvas.rng
    if scene.variant == "path":
        y = rng.uniform(0.25, 0.5)
        bare = wave((-0.1, y), (1.1, rng.uniform(0.25, 0.5)), 0.1, 1, rng.uniform(0, 6), 60)
        clear, width = bare, 0.055
        canvas.line(bare, 0.06, (196, 176, 136))
    else:
        clear, width = [(rng.uniform(0.4, 0.6), rng.uniform(0.33, 0.43))], 0.2
        canvas.disc(clear[0], 0.2, shade(MEADOW, 1.1))
    for x, y in canvas.lattice(230, (-0.03, -0.03, 1.03, EDGE + 0.03), 0.45):
        if min((x - cx) ** 2 + (y - cy) ** 2 for cx, cy in clear) > width**2:
            canvas.tree((x, y), rng.uniform(0.034, 0.05), shade(colour, 0.78))


def river(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """A wide river between green banks, with bridges."""
    rng = canvas.rng
    bend = rng.uniform(0.1, 0.13) if scene.variant == "winding" else 0.0
    course = wave((-0.1, 0.38), (1.1, 0.38), bend, 1.2, rng.uniform(0, 6), 60)
    canvas.line(course, 0.27, (128, 122, 84))
    canvas.line(course, 0.235, WATER)
    for x, y in canvas.lattice(26, (0, 0, 1, EDGE), 0.4):
        if min(math.dist((x, y), point) for point in course) > 0.18:
            canvas.tree((x, y), 0.028)
    for index in range(scene.count):
        x = (index + 0.5 + rng.uniform(-0.2, 0.2)) / scene.count
        y = min(course, key=lambda point: abs(point[0] - x))[1]
        canvas.rectangle((x, y), 0.075, 0.4, rng.uniform(-0.12, 0.12), colour, 0.03)
        canvas.rectangle((x, y), 0.02, 0.4, 0, shade(colour, 0.75))


def beach(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Sea above, sand below, parasols on it."""
    rng = canvas.rng
    shore = wave((-0.1, 0.3), (1.1, rng.uniform(0.26, 0.34)), 0.02, 1.5, rng.uniform(0, 6))
    canvas.polygon([(-0.1, -0.1), *shore, (1.1, -0.1)], shade(SEA, rng.uniform(0.95, 1.1)))
    canvas.line([(x, y - 0.025) for x, y in shore], 0.05, (86, 158, 172))
    if scene.variant == "waves":
        for offset in (0.0, 0.06, 0.13):
            foam = [(x, y - offset + rng.uniform(-0.006, 0.006)) for x, y in shore]
            canvas.dashes(foam, 0.022, (240, 244, 244), 1 if not offset else 2)
    for place in canvas.lattice(scene.count, (0.04, 0.4, 0.96, EDGE - 0.03), 0.15):
        canvas.disc(place, 0.05, colour, 0.04)
        canvas.disc(place, 0.017, shade(colour, 0.7))


def baseball_field(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """The fan of the outfield, the diamond of the infield, and stands around home plate."""
    home = (0.5, 0.62)
    arc = np.linspace(-0.8 * math.pi + 0.15, -0.2 * math.pi - 0.15, 16)
    clay = (186, 128, 84)
    canvas.polygon([home, *((0.5 + 0.6 * math.cos(t), 0.62 + 0.58 * math.sin(t)) for t in arc)], (74, 132, 58))
    inner = [home, *((0.5 + 0.34 * math.cos(t), 0.62 + 0.34 * math.sin(t)) for t in arc)]
    canvas.polygon(inner, clay)
    grass = (100, 164, 74) if scene.variant == "grass" else shade(SAND, 1.02)
    canvas.polygon(turned_rectangle((0.5, 0.47), 0.155, 0.155, math.pi / 4), grass)
    canvas.disc(home, 0.045, clay)
    canvas.disc((0.5, 0.47), 0.02, shade(clay, 0.9))
    for x, y, angle in ((0.2, 0.58, 0.85), (0.8, 0.58, -0.85), (0.5, 0.715, 0.0))[: scene.count]:
        canvas.rectangle((x, y), 0.27, 0.085, angle, colour, 0.03)
        canvas.rectangle((x, y), 0.27, 0.02, angle, shade(colour, 0.7))


def parking_lot(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Asphalt with bays, marked by lines or parted by trees, and a few cars."""
    rng = canvas.rng
    rows = (0.13, 0.38, 0.63)
    bays = np.linspace(0.05, 0.95, 8)
    for y in rows:
        if scene.variant == "lines":
            for x in bays:
                canvas.line([(x, y - 0.09), (x, y + 0.09)], 0.014, (228, 228, 224))
    if scene.variant == "trees":
        for y in (0.255, 0.505, 0.745):
            for x in np.linspace(0.04, 0.96, 9):
                canvas.tree((x + rng.uniform(-0.01, 0.01), y), 0.036)
    cells = [((a + b) / 2, y) for y in rows for a, b in itertools.pairwise(bays)]
    for index in sorted(rng.choice(len(cells), scene.count, replace=False)):
        car(canvas, cells[index], math.pi / 2 + rng.uniform(-0.05, 0.05), colour, 0.14)


def car(canvas: Canvas, centre: tuple, angle: float, colour: tuple, length: float) -> None:
    """Body, and glass before and behind the roof."""
    canvas.rectangle(centre, length, length * 0.5, angle, colour, 0.014)
    canvas.rectangle(centre, length * 0.55, length * 0.42, angle, shade((70, 80, 92), 0.8))
    canvas.rectangle(centre, length * 0.3, length * 0.42, angle, shade(colour, 1.08))


def storage_tanks(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Cylinders with long shadows, on paved ground with pipes."""
    rng = canvas.rng
    equal = scene.variant == "rows"
    places = canvas.lattice(scene.count, FIELD, 0.0 if equal else 0.08)
    columns = math.ceil(math.sqrt(scene.count * 0.92 / 0.68))
    largest = min(0.13, 0.42 * min(0.92 / columns, 0.68 / math.ceil(scene.count / columns)))
    for index, (x, y) in enumerate(places):
        canvas.line([(x, y), (x, EDGE)], 0.008, (120, 116, 110))
        radius = largest if equal else largest * (1.0, 0.5, 0.75)[index % 3] * rng.uniform(0.92, 1.0)
        canvas.disc((x, y), radius, shade(colour, 0.8), 0.07)
        canvas.disc((x, y), radius * 0.84, colour)
        canvas.line(
            [(x, y), (x + radius * 0.8 * canvas.sun[1], y - radius * 0.8 * canvas.sun[0])], 0.012, shade(colour, 0.7)
        )


def industrial_area(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Large halls with ribbed roofs; parallel, or with stacks of containers between them."""
    rng = canvas.rng
    count = scene.count
    if scene.variant == "parallel":
        width = 0.92 / count
        places = [(0.04 + (index + 0.5) * width, 0.37) for index in range(count)]
        size = (min(0.24, width * 0.72), 0.56)
    else:
        places = canvas.lattice(count, (0.02, 0.02, 0.98, EDGE - 0.02), 0.0)
        size = (0.32, 0.2) if count <= 4 else (0.21, 0.2)
        for x, y in canvas.lattice(60, (0.02, 0.02, 0.98, EDGE - 0.02), 0.3):
            paint = [(220, 140, 40), (60, 140, 150), (150, 60, 120)][rng.integers(3)]
            canvas.rectangle((x, y), 0.055, 0.024, 0, shade(paint, rng.uniform(0.8, 1.1)), 0.01)
    for x, y in places:
        width, depth = size[0] * rng.uniform(0.92, 1), size[1] * rng.uniform(0.92, 1)
        canvas.rectangle((x, y), width, depth, 0, colour, 0.045)
        for offset in np.linspace(-0.4, 0.4, 5):
            canvas.rectangle((x, y + offset * depth), width * 0.9, 0.008, 0, shade(colour, 0.8))


def solar_farm(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Panels in long rows, or in blocks with tracks between."""
    rng = canvas.rng
    panel = shade(colour, 0.62) if scene.colour == "blue" else shade(colour, 1.1)
    blocks = [(0.5, 0.38, 0.92, 0.66)]
    if scene.variant == "blocks":
        blocks = [(x, y, 0.37, 0.27) for x in (0.25, 0.75) for y in (0.19, 0.57)]
    for x, y, width, depth in blocks:
        for offset in np.arange(-depth / 2, depth / 2, 0.068):
            row = (x + rng.uniform(-0.01, 0.01), y + offset + 0.03)
            canvas.rectangle(row, width, 0.045, 0, panel, 0.012)
            canvas.rectangle((row[0], row[1] - 0.012), width, 0.006, 0, shade(panel, 1.7))
            for x_gap in np.linspace(-0.5, 0.5, 9)[1:-1]:
                canvas.rectangle((row[0] + x_gap * width, row[1]), 0.006, 0.045, 0, shade(panel, 1.7))


def roundabout(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """A ring of asphalt with four roads, an island, and cars."""
    rng = canvas.rng
    centre = (0.5, 0.38)
    for end in ((-0.1, 0.38), (1.1, 0.38), (0.5, -0.1), (0.5, EDGE + 0.1)):
        canvas.line([centre, end], 0.15, ASPHALT)
        canvas.dashes(wave(centre, end, 0, count=14), 0.01, (220, 220, 220))
    canvas.disc(centre, 0.29, ASPHALT)
    canvas.disc(centre, 0.155, (206, 204, 196))
    canvas.disc(centre, 0.14, (92, 150, 66))
    if scene.variant == "fountain":
        canvas.disc(centre, 0.1, (206, 204, 196), 0.01)
        canvas.disc(centre, 0.08, (70, 150, 200))
        canvas.disc(centre, 0.03, (235, 244, 248))
    start = rng.uniform(0, 2 * math.pi)
    for index in range(scene.count):
        turn = start + index * 2 * math.pi / scene.count + rng.uniform(-0.1, 0.1)
        place = (centre[0] + 0.225 * math.cos(turn), centre[1] + 0.225 * math.sin(turn))
        car(canvas, place, turn + math.pi / 2, colour, 0.13)


def stadium(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """A pitch with white lines, with or without a running track, and stands on one to four sides."""
    canvas.rectangle((0.5, 0.38), 0.97, 0.73, 0, CONCRETE)
    width, depth = 0.5, 0.28
    if scene.variant == "track":
        for turn in (-1, 1):
            canvas.disc((0.5 + turn * 0.19, 0.38), 0.215, (178, 78, 56))
        canvas.rectangle((0.5, 0.38), 0.38, 0.43, 0, (178, 78, 56))
        for turn in (-1, 1):
            canvas.disc((0.5 + turn * 0.19, 0.38), 0.15, (86, 140, 62))
        width, depth = 0.4, 0.27
    for stripe in range(6):
        tint = (78, 148, 60) if stripe % 2 else (96, 166, 74)
        canvas.rectangle((0.5 + (stripe - 2.5) * width / 6, 0.38), width / 6 + 0.002, depth, 0, tint)
    left, right, top, bottom = 0.5 - width / 2, 0.5 + width / 2, 0.38 - depth / 2, 0.38 + depth / 2
    canvas.line([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], 0.01, (240, 240, 240))
    canvas.line([(0.5, top), (0.5, bottom)], 0.01, (240, 240, 240))
    long, short = 0.66, 0.4
    sides = (
        (0.5, 0.085, long, 0.0),
        (0.5, 0.675, long, 0.0),
        (0.065, 0.38, short, math.pi / 2),
        (0.935, 0.38, short, math.pi / 2),
    )
    for x, y, length, angle in sides[: scene.count]:
        canvas.rectangle((x, y), length, 0.1, angle, colour, 0.03)
        for offset in (-0.02, 0.02):
            shift = (x - offset * math.sin(angle), y + offset * math.cos(angle))
            canvas.rectangle(shift, length, 0.01, angle, shade(colour, 0.72))


def mountain(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Relief in the light of the sun: peaks of the given colour, along a ridge or parted by a valley."""
    rng = canvas.rng
    y, x = np.mgrid[0 : canvas.pixels, 0 : canvas.pixels] / canvas.pixels
    places = canvas.lattice(scene.count, (0.05, 0.05, 0.95, EDGE - 0.08), 0.08)
    width = {1: 0.2, 2: 0.14, 3: 0.11, 4: 0.105}[scene.count]
    summit = np.zeros_like(x)
    for place in places:
        summit = np.maximum(summit, np.clip(1 - np.hypot(x - place[0], y - place[1]) / (2 * width), 0, 1) ** 1.3)
    height = 0.75 * summit + 0.05 * canvas.texture
    phase = rng.uniform(0, 6)
    crest = 0.38 + 0.06 * np.sin(5 * x + phase)
    distance = np.abs(y - crest)
    if scene.variant == "ridge":
        height += 0.35 * np.exp(-distance / 0.07)
    else:
        height -= 0.3 * np.exp(-((distance / 0.05) ** 2))
    gradient = np.gradient(height * canvas.pixels * 0.16)
    light = np.clip(1 + 0.75 * (gradient[0] * canvas.sun[1] + gradient[1] * canvas.sun[0]), 0.3, 1.6)[..., None]
    cover = np.clip((summit[..., None] - 0.3 + 0.06 * canvas.texture[..., None]) * 9, 0, 1)
    rock = np.array([104, 98, 82]) * (1 - cover) + np.array(colour) * cover
    relief = np.clip(rock * light, 0, 255).astype(np.uint8)
    canvas.image.paste(Image.fromarray(relief))
    if scene.variant == "valley":
        canvas.line(
            [(t, 0.38 + 0.06 * math.sin(5 * t + phase)) for t in np.linspace(-0.05, 1.05, 30)], 0.025, (70, 112, 132)
        )


def desert(canvas: Canvas, scene: Scene, colour: tuple) -> None:
    """Crescent dunes on sand with ripples or rocks."""
    rng = canvas.rng
    if scene.variant == "ripples":
        for y in np.arange(0.0, EDGE, 0.045):
            canvas.line(wave((-0.1, y), (1.1, y + 0.05), 0.012, 2, rng.uniform(0, 1)), 0.012, shade(SAND, 0.85))
    else:
        for x, y in canvas.lattice(16, (0.02, 0.02, 0.98, EDGE - 0.02), 0.4):
            canvas.disc((x, y), rng.uniform(0.018, 0.032), (70, 58, 50), 0.025)
    for x, y in canvas.lattice(scene.count, FIELD, 0.1):
        radius = rng.uniform(0.1, 0.115)
        turns = np.linspace(-1.25, 1.25, 12)
        outer = [(x + radius * math.sin(t), y - radius * math.cos(t)) for t in turns]
        inner = [(x + radius * math.sin(t), y - 0.55 * radius * math.cos(t) + 0.1 * radius) for t in reversed(turns)]
        canvas.polygon(outer + inner, shade(colour, 1.08))
        canvas.polygon([(px, py + 0.02) for px, py in reversed(inner)] + inner, shade(colour, 0.5))


PAINTERS: dict[str, tuple[tuple, float, Callable]] = {  # colour and roughness of the ground, painter
    "airport": (GRASS, 0.1, airport),
    "harbour": (WATER, 0.06, harbour),
    "dense_residential": (CONCRETE, 0.08, dense_residential),
    "sparse_residential": (shade(GRASS, 1.05), 0.1, sparse_residential),
    "farmland": ((112, 104, 72), 0.1, farmland),
    "circular_irrigation": ((186, 164, 128), 0.1, circular_irrigation),
    "forest": ((62, 74, 44), 0.15, forest),
    "river": ((112, 140, 76), 0.12, river),
    "beach": (SAND, 0.05, beach),
    "baseball_field": (shade(GRASS, 1.1), 0.1, baseball_field),
    "parking_lot": (shade(ASPHALT, 1.1), 0.05, parking_lot),
    "storage_tanks": ((168, 152, 132), 0.08, storage_tanks),
    "industrial_area": ((128, 126, 124), 0.07, industrial_area),
    "solar_farm": ((158, 152, 104), 0.1, solar_farm),
    "roundabout": (shade(GRASS, 1.1), 0.1, roundabout),
    "stadium": (GRASS, 0.1, stadium),
    "mountain": (SOIL, 0.1, mountain),
    "desert": (SAND, 0.06, desert),
}


# ------------------------------------------------------------------------------------------- what lies beside


def beside_forest(canvas: Canvas) -> None:
    """Crowns."""
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, (44, 62, 36))
    for x, y in canvas.lattice(70, (-0.02, EDGE + 0.01, 1.02, 1.03), 0.45):
        canvas.tree((x, y), canvas.rng.uniform(0.034, 0.046), (46, 88, 42))


def beside_river(canvas: Canvas) -> None:
    """A river between sandy banks."""
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, shade(GRASS, 1.05))
    course = wave((-0.1, 0.885), (1.1, 0.885), 0.018, 1.2, canvas.rng.uniform(0, 6))
    canvas.line(course, 0.17, (188, 170, 124))
    canvas.line(course, 0.135, shade(WATER, canvas.rng.uniform(0.95, 1.15)))


def beside_lake(canvas: Canvas) -> None:
    """A round body of water in grass."""
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, shade(GRASS, 1.05))
    x = canvas.rng.uniform(0.35, 0.65)
    turns = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    wobble = 1 + 0.08 * np.sin(3 * turns + canvas.rng.uniform(0, 6))
    shore = [(x + 0.27 * w * math.cos(t), 0.885 + 0.095 * w * math.sin(t)) for t, w in zip(turns, wobble, strict=True)]
    canvas.polygon([(x + (px - x) * 1.08, 0.885 + (py - 0.885) * 1.15) for px, py in shore], (150, 146, 104))
    canvas.polygon(shore, (30, 76, 150))


def beside_road(canvas: Canvas) -> None:
    """A wide road with a dashed centre line and cars too small to count."""
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, shade(SOIL, 1.1))
    canvas.rectangle((0.5, 0.885), 1.2, 0.15, 0, (70, 71, 76))
    for y in (0.822, 0.948):
        canvas.line([(-0.1, y), (1.1, y)], 0.01, (226, 226, 220))
    canvas.dashes(wave((-0.1, 0.885), (1.1, 0.885), 0, count=20), 0.016, (240, 236, 200))


def beside_meadow(canvas: Canvas) -> None:
    """Light grass with flowers."""
    canvas.rectangle((0.5, 0.89), 1.2, 0.26, 0, shade(MEADOW, 1.12))
    for x, y in canvas.lattice(50, (0, EDGE, 1, 1), 0.5):
        tint = [(228, 222, 120), (236, 236, 226), (120, 156, 70)][canvas.rng.integers(3)]
        canvas.disc((x, y), 0.01, tint)


def beside_railway(canvas: Canvas) -> None:
    """Ballast, sleepers and two pairs of rails."""
    canvas.rectangle((0.5, 0.89), 1.2, 0.25, 0, (132, 118, 104))
    for y in (0.835, 0.935):
        for x in np.arange(0, 1.02, 0.042):
            canvas.rectangle((x, y), 0.018, 0.078, 0, (72, 56, 46))
        for rail in (-0.022, 0.022):
            canvas.line([(-0.1, y + rail), (1.1, y + rail)], 0.012, (196, 198, 204))


BESIDES: dict[str, Callable[[Canvas], None]] = {
    "forest": beside_forest,
    "river": beside_river,
    "lake": beside_lake,
    "road": beside_road,
    "meadow": beside_meadow,
    "railway": beside_railway,
}


def contact_sheet(images: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """
    Pictures in a grid, with a line of text below each.

    Args:
        images (`Sequence[Image.Image]`): Pictures of one size.
        captions (`Sequence[str]`): A short text for each.
        columns (`int`): Pictures in a row.
    """
    width, height = images[0].size
    margin, text = 8, 18
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + margin) + margin, rows * (height + text + margin) + margin), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, image in enumerate(images):
        left, top = margin + index % columns * (width + margin), margin + index // columns * (height + text + margin)
        sheet.paste(image, (left, top))
        pen.text((left, top + height + 2), captions[index], fill=(40, 40, 40), font=font)
    return sheet
