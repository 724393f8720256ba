"""English captions of the demo scenes."""

from rsmclip.data.demo.scene import Scene

# The index is the count, MANY is 0
NUMBERS = ("many", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

THINGS = {  # singular, plural
    "plane": ("airplane", "airplanes"),
    "boat": ("boat", "boats"),
    "house": ("house", "houses"),
    "field": ("field", "fields"),
    "circular_field": ("circular field", "circular fields"),
    "tree": ("tree", "trees"),
    "bridge": ("bridge", "bridges"),
    "parasol": ("parasol", "parasols"),
    "stand": ("stand", "stands"),  # seats for spectators
    "car": ("car", "cars"),
    "tank": ("tank", "tanks"),  # cylinders for oil
    "warehouse": ("warehouse", "warehouses"),
    "solar_panel": ("solar panel", "solar panels"),
    "peak": ("peak", "peaks"),
    "dune": ("dune", "dunes"),
}

PLACES = {  # a place, in a place
    "airport": ("an airport", "at an airport"),
    "harbour": ("a harbour", "in a harbour"),
    "dense_residential": ("a dense residential area", "in a dense residential area"),
    "sparse_residential": ("a sparse residential area", "in a sparse residential area"),
    "farmland": ("a piece of farmland", "on a piece of farmland"),
    "circular_irrigation": ("a circular irrigation area", "in a circular irrigation area"),
    "forest": ("a forest", "in a forest"),
    "river": ("a river", "over a river"),  # said of bridges
    "beach": ("a beach", "on a beach"),
    "baseball_field": ("a baseball field", "at a baseball field"),
    "parking_lot": ("a parking lot", "in a parking lot"),
    "storage_tanks": ("an oil depot", "in an oil depot"),
    "industrial_area": ("an industrial area", "in an industrial area"),
    "solar_farm": ("a solar farm", "on a solar farm"),
    "roundabout": ("a roundabout", "on a roundabout"),
    "stadium": ("a stadium", "in a stadium"),
    "mountain": ("a mountain range", "in a mountain range"),
    "desert": ("a desert", "in a desert"),
    "lake": ("a lake",),  # the last four lie only beside other places
    "road": ("a road",),
    "meadow": ("a meadow",),
    "railway": ("a railway line",),
}

VARIANTS = {
    ("airport", "one_runway"): "A long runway crosses the airport.",
    ("airport", "two_runways"): "Two runways cross at the airport.",
    ("harbour", "long_pier"): "A long pier stretches out into the water.",
    ("harbour", "short_piers"): "Several short piers line the waterfront.",
    ("dense_residential", "straight_streets"): "The houses stand close together along straight streets.",
    ("dense_residential", "curved_streets"): "The houses stand close together along curved streets.",
    ("sparse_residential", "trees"): "Many trees grow between the scattered houses.",
    ("sparse_residential", "lawns"): "Wide lawns lie between the scattered houses.",
    ("farmland", "strips"): "The cultivated fields are long and narrow.",
    ("farmland", "squares"): "The cultivated fields are square and of equal size.",
    ("circular_irrigation", "even"): "The irrigated circles are evenly planted.",
    ("circular_irrigation", "sectors"): "The irrigated circles are divided into sectors.",
    ("forest", "path"): "A narrow path winds through the dense forest.",
    ("forest", "clearing"): "There is a clearing in the middle of the dense forest.",
    ("river", "straight"): "The river flows in a straight line.",
    ("river", "winding"): "The river winds in wide bends.",
    ("beach", "waves"): "White waves break on the sandy beach.",
    ("beach", "calm"): "The sea off the sandy beach is calm.",
    ("baseball_field", "grass"): "The infield of the baseball field is covered with grass.",
    ("baseball_field", "sand"): "The infield of the baseball field is bare sand.",
    ("parking_lot", "lines"): "The parking spaces are marked with white lines.",
    ("parking_lot", "trees"): "Trees grow between the rows of parking spaces.",
    ("storage_tanks", "equal"): "The storage tanks are all the same size.",
    ("storage_tanks", "sizes"): "The storage tanks are of different sizes.",
    ("industrial_area", "parallel"): "The long factory buildings stand parallel to each other.",
    ("industrial_area", "containers"): "Containers are stacked between the factory buildings.",
    ("solar_farm", "rows"): "The solar panels are arranged in long parallel rows.",
    ("solar_farm", "blocks"): "The solar panels are arranged in several separate blocks.",
    ("roundabout", "lawn"): "There is a round lawn in the middle of the roundabout.",
    ("roundabout", "fountain"): "There is a fountain in the middle of the roundabout.",
    ("stadium", "track"): "A red running track surrounds the pitch of the stadium.",
    ("stadium", "no_track"): "The stadium has no running track around the pitch.",
    ("mountain", "ridge"): "A sharp ridge runs through the mountains.",
    ("mountain", "valley"): "A deep valley cuts through the mountains.",
    ("desert", "ripples"): "The wind has drawn fine ripples in the desert sand.",
    ("desert", "rocks"): "Dark rocks rise out of the desert sand.",
}


def captions(scene: Scene) -> list[str]:
    noun = THINGS[scene.thing][scene.count != 1]
    number = NUMBERS[scene.count]
    place, in_place = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    colored = f"{number} {scene.color} {noun}"  # three white airplanes
    return [
        f"{colored} {in_place}.".capitalize(),
        f"{place} next to {beside}.".capitalize(),
        f"This aerial image shows {place} with {number} {noun}.",
        VARIANTS[scene.kind, scene.variant],
        f"You can see {colored}, and there is {beside} nearby.",
    ]
