"""Dutch captions of the demo scenes. A color ends in -e, except with one neuter thing: "een wit vliegtuig"."""

from rsmclip.data.demo.scene import Scene

# The index is the count, MANY is 0
NUMBERS = ("veel", "een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen")

COLORS = {  # without and with ending
    "white": ("wit", "witte"),
    "grey": ("grijs", "grijze"),
    "black": ("zwart", "zwarte"),
    "red": ("rood", "rode"),
    "blue": ("blauw", "blauwe"),
    "green": ("groen", "groene"),
    "yellow": ("geel", "gele"),
    "brown": ("bruin", "bruine"),
}

THINGS = {  # singular, plural, neuter
    "plane": ("vliegtuig", "vliegtuigen", True),
    "boat": ("boot", "boten", False),
    "house": ("huis", "huizen", True),
    "field": ("akker", "akkers", False),
    "circular_field": ("irrigatiecirkel", "irrigatiecirkels", False),
    "tree": ("boom", "bomen", False),
    "bridge": ("brug", "bruggen", False),
    "parasol": ("parasol", "parasols", False),
    "stand": ("tribune", "tribunes", False),
    "car": ("auto", "auto's", False),
    "tank": ("opslagtank", "opslagtanks", False),
    "warehouse": ("loods", "loodsen", False),
    "solar_panel": ("zonnepaneel", "zonnepanelen", True),
    "peak": ("bergtop", "bergtoppen", False),
    "dune": ("duin", "duinen", True),
}

PLACES = {  # a place, preposition
    "airport": ("een luchthaven", "op"),
    "harbour": ("een haven", "in"),
    "dense_residential": ("een dichtbebouwde woonwijk", "in"),
    "sparse_residential": ("een dunbebouwde woonwijk", "in"),
    "farmland": ("een stuk landbouwgrond", "op"),
    "circular_irrigation": ("een cirkelvormig geïrrigeerd landbouwgebied", "in"),
    "forest": ("een bos", "in"),
    "river": ("een rivier", "over"),
    "beach": ("een strand", "op"),
    "baseball_field": ("een honkbalveld", "bij"),
    "parking_lot": ("een parkeerterrein", "op"),
    "storage_tanks": ("een oliedepot", "in"),
    "industrial_area": ("een industrieterrein", "op"),
    "solar_farm": ("een zonnepark", "in"),
    "roundabout": ("een rotonde", "op"),
    "stadium": ("een stadion", "in"),
    "mountain": ("een bergketen", "in"),
    "desert": ("een woestijn", "in"),
    "lake": ("een meer",),  # the last four lie only beside other places
    "road": ("een weg",),
    "meadow": ("een weide",),
    "railway": ("een spoorlijn",),
}

VARIANTS = {
    ("airport", "one_runway"): "Een lange landingsbaan loopt over de luchthaven.",
    ("airport", "two_runways"): "Twee landingsbanen kruisen elkaar op de luchthaven.",
    ("harbour", "long_pier"): "Een lange pier steekt uit in het water.",
    ("harbour", "short_piers"): "Langs de waterkant liggen verscheidene korte pieren.",
    ("dense_residential", "straight_streets"): "De huizen staan dicht op elkaar langs rechte straten.",
    ("dense_residential", "curved_streets"): "De huizen staan dicht op elkaar langs gebogen straten.",
    ("sparse_residential", "trees"): "Tussen de verspreide huizen groeien veel bomen.",
    ("sparse_residential", "lawns"): "Tussen de verspreide huizen liggen uitgestrekte gazons.",
    ("farmland", "strips"): "De akkers zijn lang en smal.",
    ("farmland", "squares"): "De akkers zijn vierkant en even groot.",
    ("circular_irrigation", "even"): "De geïrrigeerde cirkels zijn gelijkmatig beplant.",
    ("circular_irrigation", "sectors"): "De geïrrigeerde cirkels zijn in sectoren verdeeld.",
    ("forest", "path"): "Een smal pad kronkelt door het dichte bos.",
    ("forest", "clearing"): "Midden in het dichte bos is een open plek.",
    ("river", "straight"): "De rivier stroomt in een rechte lijn.",
    ("river", "winding"): "De rivier kronkelt in wijde bochten.",
    ("beach", "waves"): "Witte golven breken op het zandstrand.",
    ("beach", "calm"): "De zee voor het zandstrand is kalm.",
    ("baseball_field", "grass"): "Het binnenveld van het honkbalveld is bedekt met gras.",
    ("baseball_field", "sand"): "Het binnenveld van het honkbalveld bestaat uit kaal zand.",
    ("parking_lot", "lines"): "De parkeervakken zijn met witte lijnen gemarkeerd.",
    ("parking_lot", "trees"): "Tussen de rijen parkeervakken groeien bomen.",
    ("storage_tanks", "equal"): "De opslagtanks zijn allemaal even groot.",
    ("storage_tanks", "sizes"): "De opslagtanks verschillen in grootte.",
    ("industrial_area", "parallel"): "De lange fabrieksgebouwen staan evenwijdig aan elkaar.",
    ("industrial_area", "containers"): "Tussen de fabrieksgebouwen staan containers opgestapeld.",
    ("solar_farm", "rows"): "De zonnepanelen staan in lange evenwijdige rijen.",
    ("solar_farm", "blocks"): "De zonnepanelen staan in verschillende afzonderlijke blokken.",
    ("roundabout", "lawn"): "In het midden van de rotonde ligt een rond gazon.",
    ("roundabout", "fountain"): "In het midden van de rotonde staat een fontein.",
    ("stadium", "track"): "Een rode atletiekbaan omringt het speelveld van het stadion.",
    ("stadium", "no_track"): "Het stadion heeft geen atletiekbaan rond het speelveld.",
    ("mountain", "ridge"): "Een scherpe bergkam loopt door het gebergte.",
    ("mountain", "valley"): "Een diep dal doorsnijdt het gebergte.",
    ("desert", "ripples"): "De wind heeft fijne ribbels in het woestijnzand getekend.",
    ("desert", "rocks"): "Donkere rotsen steken uit het woestijnzand.",
}


def captions(scene: Scene) -> list[str]:
    singular, plural, neuter = THINGS[scene.thing]
    number, noun = NUMBERS[scene.count], singular if scene.count == 1 else plural
    color = COLORS[scene.color][not (neuter and scene.count == 1)]
    colored = f"{number} {color} {noun}"  # drie witte vliegtuigen
    place, preposition = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    return [
        f"{colored} {preposition} {place}.".capitalize(),
        f"{place} naast {beside}.".capitalize(),
        f"Deze luchtfoto toont {place} met {number} {noun}.",
        VARIANTS[scene.kind, scene.variant],
        f"Je ziet {colored} en er is {beside} in de buurt.",
    ]
