"""Facts of the demo scenes.

Drawing and grammar turn a [`Scene`] independently into a picture and into fifty captions, five in each of ten
languages. Facts are spelled as in the English captions (harbour, grey).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MANY = 0  # `Scene.count` of objects too numerous to count
COLOR_NAMES = ("white", "grey", "black", "red", "blue", "green", "yellow", "brown")


class Kind(NamedTuple):
    """Facts that scenes of one class may have."""

    thing: str  # object that is counted and colored
    counts: tuple[int, ...]
    colors: tuple[str, ...]
    besides: tuple[str, ...]  # what may be beside the scene
    variants: tuple[str, str]  # two layouts, with a sentence for each


ANY = ("forest", "river", "lake", "road", "meadow", "railway")
DRY = ("forest", "road", "meadow", "railway")  # beside a scene that already has water
NO_WOOD = ("river", "lake", "road", "railway")  # beside a scene that is green itself
WILD = ("river", "lake", "road", "meadow")
ARID = ("road", "railway", "lake")

KINDS: dict[str, Kind] = {
    "airport": Kind("plane", (1, 2, 3, 4, 5, 6), ("white", "grey", "blue"), ANY, ("one_runway", "two_runways")),
    "harbour": Kind("boat", (2, 3, 4, 5, 6, 7), ("white", "blue", "red"), DRY, ("long_pier", "short_piers")),
    "dense_residential": Kind("house", (MANY,), ("red", "grey", "brown"), ANY, ("straight_streets", "curved_streets")),
    "sparse_residential": Kind("house", (2, 3, 4, 5, 6), ("red", "grey", "white"), ANY, ("trees", "lawns")),
    "farmland": Kind("field", (2, 3, 4, 5, 6), ("green", "yellow", "brown"), ANY, ("strips", "squares")),
    "circular_irrigation": Kind("circular_field", (2, 3, 4), ("green", "yellow", "brown"), ANY, ("even", "sectors")),
    "forest": Kind("tree", (MANY,), ("green", "yellow", "brown"), NO_WOOD, ("path", "clearing")),
    "river": Kind("bridge", (1, 2, 3), ("grey", "white", "red"), DRY, ("straight", "winding")),
    "beach": Kind("parasol", (3, 4, 5, 6, 7, 8), ("red", "white", "yellow", "blue"), DRY, ("waves", "calm")),
    "baseball_field": Kind("stand", (1, 2, 3), ("white", "grey", "blue", "red"), ANY, ("grass", "sand")),
    "parking_lot": Kind("car", (3, 4, 5, 6, 7, 8, 9), ("white", "red", "blue", "black"), ANY, ("lines", "trees")),
    "storage_tanks": Kind("tank", (2, 3, 4, 5, 6, 7, 8, 9), ("white", "grey", "brown"), ANY, ("equal", "sizes")),
    "industrial_area": Kind(
        "warehouse", (2, 3, 4, 5, 6), ("blue", "grey", "white", "red"), ANY, ("parallel", "containers")
    ),
    "solar_farm": Kind("solar_panel", (MANY,), ("blue", "black"), ANY, ("rows", "blocks")),
    "roundabout": Kind("car", (1, 2, 3, 4, 5), ("white", "red", "blue", "black"), ANY, ("lawn", "fountain")),
    "stadium": Kind("stand", (1, 2, 3, 4), ("blue", "red", "white", "grey"), ANY, ("track", "no_track")),
    "mountain": Kind("peak", (1, 2, 3, 4), ("white", "grey", "brown"), WILD, ("ridge", "valley")),
    "desert": Kind("dune", (2, 3, 4, 5, 6), ("yellow", "red", "brown"), ARID, ("ripples", "rocks")),
}


@dataclass(frozen=True)
class Scene:
    """Facts of one picture."""

    kind: str  # scene class, a key of `KINDS`
    count: int  # number of counted objects, or `MANY`
    color: str  # color of the counted objects
    beside: str  # what is beside the scene
    variant: str  # layout, one of the kind's `variants`

    @property
    def thing(self) -> str:
        """Object that is counted and colored."""
        return KINDS[self.kind].thing


def draw_scene(kind: str, rng: np.random.Generator) -> Scene:
    """Draw the facts of a scene of class `kind` at random."""
    spec = KINDS[kind]
    return Scene(
        kind=kind,
        count=int(rng.choice(spec.counts)),
        color=str(rng.choice(spec.colors)),
        beside=str(rng.choice(spec.besides)),
        variant=str(rng.choice(spec.variants)),
    )
