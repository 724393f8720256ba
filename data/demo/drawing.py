"""Draw demo scenes from above.

A scene fills the canvas above `EDGE`. The finished picture is rotated and mirrored at random. `PAINTERS` has a painter
for each scene class. The argument `color` is the color of the counted objects.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from rsmclip.data.demo.beside import BESIDES, EDGE
from rsmclip.data.demo.ground import ASPHALT, COLORS, CONCRETE, GRASS, MEADOW, SAND, SOIL, WATER, Canvas, shade, wave
from rsmclip.data.demo.scene import Scene

FIELD = (0.04, 0.04, 0.96, EDGE - 0.04)  # box of the countable objects: left, top, right, bottom


def draw(scene: Scene, rng: np.random.Generator, size: int = 96) -> Image.Image:
    """Draw the facts of a scene as an RGB image of `size` × `size` pixels. All other details are random."""
    ground, roughness, paint = PAINTERS[scene.kind]
    canvas = Canvas(size, rng, shade(ground, rng.uniform(0.9, 1.1)), roughness)
    paint(canvas, rng, scene, COLORS[scene.color])
    BESIDES[scene.beside](canvas)
    return canvas.finish(size)


def airport(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
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
        length = rng.uniform(0.9, 1.0) * (0.11 if scene.count < 5 else 0.09)
        plane(canvas, (x, y), length, rng.uniform(0, 2 * math.pi), color)


def plane(canvas: Canvas, center: tuple, length: float, angle: float, color: tuple) -> None:
    wing = [(1, 0.1), (0.25, 0.14), (-0.25, 1), (-0.5, 1), (-0.15, 0.14)]
    tail = [(-0.75, 0.1), (-0.95, 0.42), (-1.05, 0.42), (-0.95, 0)]
    half = wing + tail
    points = place_outline(half + [(x, -y) for x, y in reversed(half)], center, length, angle)
    canvas.polygon([(x + canvas.sun[0] * 0.02, y + canvas.sun[1] * 0.02) for x, y in points], (70, 70, 72))
    canvas.polygon(points, color)


def harbour(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    canvas.rectangle((0.5, 0.03), 1.2, 0.16, 0, CONCRETE, 0.02)
    for _ in range(4):
        x, width, tint = rng.uniform(0, 1), rng.uniform(0.08, 0.16), shade(SOIL, rng.uniform(0.7, 1.2))
        canvas.rectangle((x, 0.03), width, 0.08, 0, tint)
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
        boat(canvas, place, rng.uniform(0.07, 0.085), rng.uniform(0, 2 * math.pi), color)


def boat(canvas: Canvas, center: tuple, length: float, angle: float, color: tuple) -> None:
    hull = [(1.1, 0), (0.5, 0.4), (-0.9, 0.38), (-0.9, -0.38), (0.5, -0.4)]
    canvas.polygon(place_outline(hull, center, length, angle), color, 0.015)
    deck = (center[0] - length * 0.25 * math.cos(angle), center[1] - length * 0.25 * math.sin(angle))
    canvas.rectangle(deck, length * 0.7, length * 0.35, angle, shade(color, 0.72))


def place_outline(outline: Sequence[tuple], center: tuple, length: float, angle: float) -> list[tuple]:
    """Turn an outline by `angle` (radians), scale it by `length` and move it to `center`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(center[0] + length * (x * cos - y * sin), center[1] + length * (x * sin + y * cos)) for x, y in outline]


def dense_residential(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    curved = scene.variant == "curved_streets"
    bend, phase = (rng.uniform(0.07, 0.09), rng.uniform(0, 6)) if curved else (0.0, 0.0)
    rows = np.linspace(0.0, EDGE, 5)
    for y in rows:
        canvas.line(wave((-0.1, y), (1.1, y), bend, 1, phase), 0.045, shade(ASPHALT, 1.15))
    for upper, lower in itertools.pairwise(rows):
        for offset in (0.3, 0.7):
            y = upper + (lower - upper) * offset
            street = wave((0.0, y), (1.0, y), bend, 1, phase, 14)
            for (x0, y0), (x1, y1) in itertools.pairwise(street):
                angle = math.atan2(y1 - y0, x1 - x0)
                tint = shade(color, rng.uniform(0.85, 1.15))
                canvas.house(((x0 + x1) / 2, (y0 + y1) / 2), rng.uniform(0.052, 0.062), 0.055, angle, tint, 0.015)


def sparse_residential(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    places = canvas.lattice(scene.count, FIELD, 0.12)
    if scene.variant == "lawns":
        for place in places:
            width, depth, angle = rng.uniform(0.27, 0.3), rng.uniform(0.25, 0.28), rng.uniform(-0.2, 0.2)
            canvas.rectangle(place, width, depth, angle, shade(MEADOW, 1.05))
    else:
        for x, y in canvas.lattice(46, (0.0, 0.0, 1.0, EDGE), 0.4):
            if min(math.dist((x, y), place) for place in places) > 0.13:
                canvas.tree((x, y), rng.uniform(0.03, 0.042))
    for place in places:
        canvas.house(place, rng.uniform(0.14, 0.17), rng.uniform(0.1, 0.12), rng.uniform(0, math.pi), color, 0.035)


def farmland(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    strips = scene.variant == "strips"
    columns = scene.count if strips else {2: 2, 3: 3, 4: 2, 5: 3, 6: 3}[scene.count]
    rows = 1 if strips else math.ceil(scene.count / columns)
    width, height = 0.98 / columns, (EDGE - 0.02) / rows
    if not strips:
        width = height = min(width, height)
    left, top = (1 - width * columns) / 2, (EDGE - height * rows) / 2
    for index in range(scene.count):
        center = (left + (index % columns + 0.5) * width, top + (index // columns + 0.5) * height)
        tint = shade(color, rng.uniform(0.85, 1.15))
        canvas.rectangle(center, width * 0.9, height * 0.93, 0, tint)
        for offset in np.linspace(-0.42, 0.42, max(3, int(width * 30))):
            x = center[0] + offset * width
            canvas.line([(x, center[1] - height * 0.45), (x, center[1] + height * 0.45)], 0.006, shade(tint, 0.85))


def circular_irrigation(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    radius = {2: 0.23, 3: 0.16, 4: 0.165}[scene.count]
    for x, y in canvas.lattice(scene.count, (0.02, 0.03, 0.98, EDGE - 0.03), 0.03):
        tint = shade(color, rng.uniform(0.88, 1.1))
        canvas.disc((x, y), radius, tint)
        start = rng.uniform(0, 2 * math.pi)
        if scene.variant == "sectors":
            for turn in (0, 2.1, 4.2):
                arc = np.linspace(start + turn, start + turn + 1.05, 8)
                points = [(x, y), *((x + radius * math.cos(t), y + radius * math.sin(t)) for t in arc)]
                canvas.polygon(points, shade(tint, 0.6))
        else:
            canvas.line([(x, y), (x + radius * math.cos(start), y + radius * math.sin(start))], 0.01, shade(tint, 1.3))


def forest(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
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
            canvas.tree((x, y), rng.uniform(0.034, 0.05), shade(color, 0.78))


def river(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
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
        canvas.rectangle((x, y), 0.075, 0.4, rng.uniform(-0.12, 0.12), color, 0.03)
        canvas.rectangle((x, y), 0.02, 0.4, 0, shade(color, 0.75))


def beach(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    shore = wave((-0.1, 0.3), (1.1, rng.uniform(0.26, 0.34)), 0.02, 1.5, rng.uniform(0, 6))
    canvas.polygon([(-0.1, -0.1), *shore, (1.1, -0.1)], shade((40, 100, 134), rng.uniform(0.95, 1.1)))
    canvas.line([(x, y - 0.025) for x, y in shore], 0.05, (86, 158, 172))
    if scene.variant == "waves":
        for offset in (0.0, 0.06, 0.13):
            foam = [(x, y - offset + rng.uniform(-0.006, 0.006)) for x, y in shore]
            canvas.dashes(foam, 0.022, (240, 244, 244), 1 if not offset else 2)
    for place in canvas.lattice(scene.count, (0.04, 0.4, 0.96, EDGE - 0.03), 0.15):
        canvas.disc(place, 0.05, color, 0.04)
        canvas.disc(place, 0.017, shade(color, 0.7))


def baseball_field(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    home = (0.5, 0.62)
    arc = np.linspace(-0.8 * math.pi + 0.15, -0.2 * math.pi - 0.15, 16)
    clay = (186, 128, 84)
    canvas.polygon([home, *((0.5 + 0.6 * math.cos(t), 0.62 + 0.58 * math.sin(t)) for t in arc)], (74, 132, 58))
    inner = [home, *((0.5 + 0.34 * math.cos(t), 0.62 + 0.34 * math.sin(t)) for t in arc)]
    canvas.polygon(inner, clay)
    grass = (100, 164, 74) if scene.variant == "grass" else shade(SAND, 1.02)
    canvas.rectangle((0.5, 0.47), 0.155, 0.155, math.pi / 4, grass)
    canvas.disc(home, 0.045, clay)
    canvas.disc((0.5, 0.47), 0.02, shade(clay, 0.9))
    for x, y, angle in ((0.2, 0.58, 0.85), (0.8, 0.58, -0.85), (0.5, 0.715, 0.0))[: scene.count]:
        canvas.rectangle((x, y), 0.27, 0.085, angle, color, 0.03)
        canvas.rectangle((x, y), 0.27, 0.02, angle, shade(color, 0.7))


def parking_lot(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    rows = (0.13, 0.38, 0.63)
    bays = np.linspace(0.05, 0.95, 8)
    if scene.variant == "lines":
        for y, x in itertools.product(rows, bays):
            canvas.line([(x, y - 0.09), (x, y + 0.09)], 0.014, (228, 228, 224))
    else:
        for y in (0.255, 0.505, 0.745):
            for x in np.linspace(0.04, 0.96, 9):
                canvas.tree((x + rng.uniform(-0.01, 0.01), y), 0.036)
    cells = [((a + b) / 2, y) for y in rows for a, b in itertools.pairwise(bays)]
    for index in sorted(rng.choice(len(cells), scene.count, replace=False)):
        car(canvas, cells[index], math.pi / 2 + rng.uniform(-0.05, 0.05), color, 0.14)


def car(canvas: Canvas, center: tuple, angle: float, color: tuple, length: float) -> None:
    canvas.rectangle(center, length, length * 0.5, angle, color, 0.014)
    canvas.rectangle(center, length * 0.55, length * 0.42, angle, shade((70, 80, 92), 0.8))
    canvas.rectangle(center, length * 0.3, length * 0.42, angle, shade(color, 1.08))


def storage_tanks(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    equal = scene.variant == "equal"
    places = canvas.lattice(scene.count, FIELD, 0.0 if equal else 0.08)
    columns = math.ceil(math.sqrt(scene.count * 0.92 / 0.68))
    largest = min(0.13, 0.42 * min(0.92 / columns, 0.68 / math.ceil(scene.count / columns)))
    for index, (x, y) in enumerate(places):
        canvas.line([(x, y), (x, EDGE)], 0.008, (120, 116, 110))
        radius = largest if equal else largest * (1.0, 0.5, 0.75)[index % 3] * rng.uniform(0.92, 1.0)
        canvas.disc((x, y), radius, shade(color, 0.8), 0.07)
        canvas.disc((x, y), radius * 0.84, color)
        ladder = [(x, y), (x + radius * 0.8 * canvas.sun[1], y - radius * 0.8 * canvas.sun[0])]
        canvas.line(ladder, 0.012, shade(color, 0.7))


def industrial_area(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
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
        canvas.rectangle((x, y), width, depth, 0, color, 0.045)
        for offset in np.linspace(-0.4, 0.4, 5):
            canvas.rectangle((x, y + offset * depth), width * 0.9, 0.008, 0, shade(color, 0.8))


def solar_farm(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    panel = shade(color, 0.62) if scene.color == "blue" else shade(color, 1.1)
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


def roundabout(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    center = (0.5, 0.38)
    for end in ((-0.1, 0.38), (1.1, 0.38), (0.5, -0.1), (0.5, EDGE + 0.1)):
        canvas.line([center, end], 0.15, ASPHALT)
        canvas.dashes(wave(center, end, 0, count=14), 0.01, (220, 220, 220))
    canvas.disc(center, 0.29, ASPHALT)
    canvas.disc(center, 0.155, (206, 204, 196))
    canvas.disc(center, 0.14, (92, 150, 66))
    if scene.variant == "fountain":
        canvas.disc(center, 0.1, (206, 204, 196), 0.01)
        canvas.disc(center, 0.08, (70, 150, 200))
        canvas.disc(center, 0.03, (235, 244, 248))
    start = rng.uniform(0, 2 * math.pi)
    for index in range(scene.count):
        turn = start + index * 2 * math.pi / scene.count + rng.uniform(-0.1, 0.1)
        place = (center[0] + 0.225 * math.cos(turn), center[1] + 0.225 * math.sin(turn))
        car(canvas, place, turn + math.pi / 2, color, 0.13)


def stadium(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    # Running track: a rectangle with two round ends
    clay, grass, white = (178, 78, 56), (86, 140, 62), (240, 240, 240)
    canvas.rectangle((0.5, 0.38), 0.97, 0.73, 0, CONCRETE)
    width, depth = 0.5, 0.28
    if scene.variant == "track":
        width, depth = 0.4, 0.27
        ends = (0.5 - 0.19, 0.38), (0.5 + 0.19, 0.38)
        for end in ends:
            canvas.disc(end, 0.215, clay)
        canvas.rectangle((0.5, 0.38), 0.38, 0.43, 0, clay)
        for end in ends:
            canvas.disc(end, 0.15, grass)

    # Pitch: mown stripes and white lines
    for stripe in range(6):
        tint = (78, 148, 60) if stripe % 2 else (96, 166, 74)
        canvas.rectangle((0.5 + (stripe - 2.5) * width / 6, 0.38), width / 6 + 0.002, depth, 0, tint)
    left, right, top, bottom = 0.5 - width / 2, 0.5 + width / 2, 0.38 - depth / 2, 0.38 + depth / 2
    canvas.line([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], 0.01, white)
    canvas.line([(0.5, top), (0.5, bottom)], 0.01, white)

    # Stands with rows of seats
    long_sides = (0.5, 0.085, 0.66, 0.0), (0.5, 0.675, 0.66, 0.0)
    short_sides = (0.065, 0.38, 0.4, math.pi / 2), (0.935, 0.38, 0.4, math.pi / 2)
    for x, y, length, angle in (*long_sides, *short_sides)[: scene.count]:
        canvas.rectangle((x, y), length, 0.1, angle, color, 0.03)
        for offset in (-0.02, 0.02):
            shift = (x - offset * math.sin(angle), y + offset * math.cos(angle))
            canvas.rectangle(shift, length, 0.01, angle, shade(color, 0.72))


def mountain(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
    # Relief: cones at the peaks, and a ridge or a valley along a curve
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

    # Light from one side, and the given color around the peaks, where bright light would change it: brown to orange
    gradient = np.gradient(height * canvas.pixels * 0.16)
    light = np.clip(1 + 0.75 * (gradient[0] * canvas.sun[1] + gradient[1] * canvas.sun[0]), 0.3, 1.6)[..., None]
    cover = np.clip((summit[..., None] - 0.3 + 0.06 * canvas.texture[..., None]) * 9, 0, 1)
    light -= 0.75 * cover * np.maximum(light - 1, 0)
    rock = np.array([104, 98, 82]) * (1 - cover) + np.array(color) * cover
    relief = np.clip(rock * light, 0, 255).astype(np.uint8)
    canvas.image.paste(Image.fromarray(relief))

    # A stream in the valley
    if scene.variant == "valley":
        course = [(t, 0.38 + 0.06 * math.sin(5 * t + phase)) for t in np.linspace(-0.05, 1.05, 30)]
        canvas.line(course, 0.025, (70, 112, 132))


def desert(canvas: Canvas, rng: np.random.Generator, scene: Scene, color: tuple) -> None:
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
        canvas.polygon(outer + inner, shade(color, 1.08))
        canvas.polygon([(px, py + 0.02) for px, py in reversed(inner)] + inner, shade(color, 0.5))


PAINTERS: dict[str, tuple[tuple, float, Callable]] = {  # color and roughness of the ground, painter
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
