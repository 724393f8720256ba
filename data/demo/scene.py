"""What a demo scene is: the facts that `demo_drawing` draws and that `demo_grammar` puts into words.

A [`Scene`] is drawn at random from the table `KINDS`. The picture and the fifty captions (five in each of ten
languages) are two independent renderings of the same facts, which is what makes the demo corpus learnable.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MANY = 0  # `Scene.count` of objects too numerous to count


class Kind(NamedTuple):
    """What scenes of one class may look like.

    Args:
        thing (`str`): The object that is counted and coloured.
        counts (`tuple[int, ...]`): Possible numbers of it (`MANY`: too many to count).
        colours (`tuple[str, ...]`): Its possible colours.
        besides (`tuple[str, ...]`): What may lie beside the scene.
        variants (`tuple[str, str]`): Two layouts of the scene, each described by a sentence of its own.
    """

    thing: str
    counts: tuple[int, ...]
    colours: tuple[str, ...]
    besides: tuple[str, ...]
    variants: tuple[str, str]


BESIDES = ("forest", "river", "lake", "road", "meadow", "railway")
DRY = ("forest", "road", "meadow", "railway")  # beside a scene that already has water
NO_WOOD = ("river", "lake", "road", "railway")  # beside a scene that is green itself
WILD = ("river", "lake", "road", "meadow")

KINDS: dict[str, Kind] = {
    "airport": Kind("plane", (1, 2, 3, 4, 5, 6), ("white", "grey", "blue"), BESIDES, ("one_runway", "two_runways")),
    "harbour": Kind("boat", (2, 3, 4, 5, 6, 7), ("white", "blue", "red"), DRY, ("long_pier", "short_piers")),
    "dense_residential": Kind(
        "house", (MANY,), ("red", "grey", "brown"), BESIDES, ("straight_streets", "curved_streets")
    ),
    "sparse_residential": Kind("house", (2, 3, 4, 5, 6), ("red", "grey", "white"), BESIDES, ("trees", "lawns")),
    "farmland": Kind("field", (2, 3, 4, 5, 6), ("green", "yellow", "brown"), BESIDES, ("strips", "squares")),
    "circular_irrigation": Kind(
        "circular_field", (2, 3, 4), ("green", "yellow", "brown"), BESIDES, ("even", "sectors")
    ),
    "forest": Kind("tree", (MANY,), ("green", "yellow", "brown"), NO_WOOD, ("path", "clearing")),
    "river": Kind("bridge", (1, 2, 3), ("grey", "white", "red"), DRY, ("straight", "winding")),
    "beach": Kind("parasol", (3, 4, 5, 6, 7, 8), ("red", "white", "yellow", "blue"), DRY, ("waves", "calm")),
    "baseball_field": Kind("stand", (1, 2, 3), ("white", "grey", "blue", "red"), BESIDES, ("grass", "sand")),
    "parking_lot": Kind("car", (3, 4, 5, 6, 7, 8, 9), ("white", "red", "blue", "black"), BESIDES, ("lines", "trees")),
    "storage_tanks": Kind("tank", (2, 3, 4, 5, 6, 7, 8, 9), ("white", "grey", "brown"), BESIDES, ("rows", "sizes")),
    "industrial_area": Kind(
        "warehouse", (2, 3, 4, 5, 6), ("blue", "grey", "white", "red"), BESIDES, ("parallel", "containers")
    ),
    "solar_farm": Kind("solar_panel", (MANY,), ("blue", "black"), BESIDES, ("rows", "blocks")),
    "roundabout": Kind("car", (1, 2, 3, 4, 5), ("white", "red", "blue", "black"), BESIDES, ("lawn", "fountain")),
    "stadium": Kind("stand", (1, 2, 3, 4), ("blue", "red", "white", "grey"), BESIDES, ("track", "no_track")),
    "mountain": Kind("peak", (1, 2, 3, 4), ("white", "grey", "brown"), WILD, ("ridge", "valley")),
    "desert": Kind(
        "dune", (2, 3, 4, 5, 6), ("yellow", "red", "brown"), ("road", "railway", "lake"), ("ripples", "rocks")
    ),
}


@dataclass(frozen=True)
class Scene:
    """The facts of one picture.

    Args:
        kind (`str`): Scene class, a key of `KINDS`.
        count (`int`): Number of its objects, or `MANY`.
        colour (`str`): Their colour.
        beside (`str`): What lies beside.
        variant (`str`): Layout, one of the kind's `variants`.
    """

    kind: str
    count: int
    colour: str
    beside: str
    variant: str

    @property
    def thing(self) -> str:
        """The object that is counted and coloured."""
        return KINDS[self.kind].thing


def draw_scene(kind: str, rng: np.random.Generator) -> Scene:
    """Draws the facts of a scene of class `kind`."""
    spec = KINDS[kind]
    return Scene(
        kind=kind,
        count=int(rng.choice(spec.counts)),
        colour=str(rng.choice(spec.colours)),
        beside=str(rng.choice(spec.besides)),
        variant=str(rng.choice(spec.variants)),
    )
