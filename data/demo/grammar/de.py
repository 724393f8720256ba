"""German captions of the demo scenes.

Noun phrases are in the nominative at the beginning, in the accusative after verbs, and in the dative
after "mit" and "neben".
"""

from rsmclip.data.demo.scene import COLOR_NAMES, MANY, Scene

NUMBERS = {2: "zwei", 3: "drei", 4: "vier", 5: "fünf", 6: "sechs", 7: "sieben", 8: "acht", 9: "neun"}

# Stems
COLORS = dict(zip(COLOR_NAMES, ("weiß", "grau", "schwarz", "rot", "blau", "grün", "gelb", "braun"), strict=True))

THINGS = {  # gender, singular, plural, plural in the dative
    "plane": ("n", "Flugzeug", "Flugzeuge", "Flugzeugen"),
    "boat": ("n", "Boot", "Boote", "Booten"),
    "house": ("n", "Haus", "Häuser", "Häusern"),
    "field": ("n", "Feld", "Felder", "Feldern"),
    "circular_field": ("m", "Bewässerungskreis", "Bewässerungskreise", "Bewässerungskreisen"),
    "tree": ("m", "Baum", "Bäume", "Bäumen"),
    "bridge": ("f", "Brücke", "Brücken", "Brücken"),
    "parasol": ("m", "Sonnenschirm", "Sonnenschirme", "Sonnenschirmen"),
    "stand": ("f", "Tribüne", "Tribünen", "Tribünen"),
    "car": ("n", "Auto", "Autos", "Autos"),
    "tank": ("m", "Tank", "Tanks", "Tanks"),
    "warehouse": ("f", "Lagerhalle", "Lagerhallen", "Lagerhallen"),
    "solar_panel": ("n", "Solarmodul", "Solarmodule", "Solarmodulen"),
    "peak": ("m", "Gipfel", "Gipfel", "Gipfeln"),
    "dune": ("f", "Düne", "Dünen", "Dünen"),
}

# Gender to article, and gender to the ending of a color after this article
NOMINATIVE, NOMINATIVE_ENDING = {"m": "ein", "f": "eine", "n": "ein"}, {"m": "er", "f": "e", "n": "es"}
ACCUSATIVE, ACCUSATIVE_ENDING = {"m": "einen", "f": "eine", "n": "ein"}, {"m": "en", "f": "e", "n": "es"}
DATIVE = {"m": "einem", "f": "einer", "n": "einem"}

PLACES = {  # gender, noun, in a place
    "airport": ("m", "Flughafen", "auf einem Flughafen"),
    "harbour": ("m", "Hafen", "in einem Hafen"),
    "dense_residential": ("n", "dicht bebautes Wohngebiet", "in einem dicht bebauten Wohngebiet"),
    "sparse_residential": ("n", "locker bebautes Wohngebiet", "in einem locker bebauten Wohngebiet"),
    "farmland": ("f", "Ackerfläche", "auf einer Ackerfläche"),
    "circular_irrigation": (
        "f",
        "kreisförmig bewässerte Anbaufläche",
        "auf einer kreisförmig bewässerten Anbaufläche",
    ),
    "forest": ("m", "Wald", "in einem Wald"),
    "river": ("m", "Fluss", "über einen Fluss"),
    "beach": ("m", "Strand", "an einem Strand"),
    "baseball_field": ("n", "Baseballfeld", "an einem Baseballfeld"),
    "parking_lot": ("m", "Parkplatz", "auf einem Parkplatz"),
    "storage_tanks": ("n", "Öllager", "in einem Öllager"),
    "industrial_area": ("n", "Industriegebiet", "in einem Industriegebiet"),
    "solar_farm": ("m", "Solarpark", "in einem Solarpark"),
    "roundabout": ("m", "Kreisverkehr", "in einem Kreisverkehr"),
    "stadium": ("n", "Stadion", "in einem Stadion"),
    "mountain": ("f", "Gebirgskette", "in einer Gebirgskette"),
    "desert": ("f", "Wüste", "in einer Wüste"),
    "lake": ("m", "See"),  # the last four lie only beside other places
    "road": ("f", "Straße"),
    "meadow": ("f", "Wiese"),
    "railway": ("f", "Bahnlinie"),
}

VARIANTS = {
    ("airport", "one_runway"): "Eine lange Landebahn durchquert den Flughafen.",
    ("airport", "two_runways"): "Zwei Landebahnen kreuzen sich auf dem Flughafen.",
    ("harbour", "long_pier"): "Ein langer Steg ragt ins Wasser hinaus.",
    ("harbour", "short_piers"): "Mehrere kurze Stege säumen das Ufer.",
    ("dense_residential", "straight_streets"): "Die Häuser stehen dicht an dicht an geraden Straßen.",
    ("dense_residential", "curved_streets"): "Die Häuser stehen dicht an dicht an geschwungenen Straßen.",
    ("sparse_residential", "trees"): "Zwischen den verstreuten Häusern wachsen viele Bäume.",
    ("sparse_residential", "lawns"): "Zwischen den verstreuten Häusern liegen weite Rasenflächen.",
    ("farmland", "strips"): "Die bestellten Felder sind lang und schmal.",
    ("farmland", "squares"): "Die bestellten Felder sind quadratisch und gleich groß.",
    ("circular_irrigation", "even"): "Die bewässerten Kreise sind gleichmäßig bepflanzt.",
    ("circular_irrigation", "sectors"): "Die bewässerten Kreise sind in Sektoren unterteilt.",
    ("forest", "path"): "Ein schmaler Weg schlängelt sich durch den dichten Wald.",
    ("forest", "clearing"): "Mitten im dichten Wald gibt es eine Lichtung.",
    ("river", "straight"): "Der Fluss fließt in gerader Linie.",
    ("river", "winding"): "Der Fluss windet sich in weiten Schleifen.",
    ("beach", "waves"): "Weiße Wellen brechen sich am Sandstrand.",
    ("beach", "calm"): "Das Meer vor dem Sandstrand ist ruhig.",
    ("baseball_field", "grass"): "Das Innenfeld des Baseballfelds ist mit Gras bedeckt.",
    ("baseball_field", "sand"): "Das Innenfeld des Baseballfelds besteht aus bloßem Sand.",
    ("parking_lot", "lines"): "Die Stellplätze sind mit weißen Linien markiert.",
    ("parking_lot", "trees"): "Zwischen den Reihen der Stellplätze wachsen Bäume.",
    ("storage_tanks", "equal"): "Die Lagertanks sind alle gleich groß.",
    ("storage_tanks", "sizes"): "Die Lagertanks sind unterschiedlich groß.",
    ("industrial_area", "parallel"): "Die langen Fabrikgebäude stehen parallel zueinander.",
    ("industrial_area", "containers"): "Zwischen den Fabrikgebäuden sind Container gestapelt.",
    ("solar_farm", "rows"): "Die Solarmodule sind in langen parallelen Reihen angeordnet.",
    ("solar_farm", "blocks"): "Die Solarmodule sind in mehreren getrennten Blöcken angeordnet.",
    ("roundabout", "lawn"): "In der Mitte des Kreisverkehrs liegt eine runde Rasenfläche.",
    ("roundabout", "fountain"): "In der Mitte des Kreisverkehrs steht ein Brunnen.",
    ("stadium", "track"): "Eine rote Laufbahn umgibt das Spielfeld des Stadions.",
    ("stadium", "no_track"): "Das Stadion hat keine Laufbahn um das Spielfeld.",
    ("mountain", "ridge"): "Ein scharfer Grat zieht sich durch die Berge.",
    ("mountain", "valley"): "Ein tiefes Tal durchschneidet die Berge.",
    ("desert", "ripples"): "Der Wind hat feine Rippeln in den Wüstensand gezeichnet.",
    ("desert", "rocks"): "Dunkle Felsen ragen aus dem Wüstensand.",
}


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]  # `capitalize` would change the nouns


def captions(scene: Scene) -> list[str]:
    gender, singular, plural, dative_plural = THINGS[scene.thing]
    stem = COLORS[scene.color]
    if scene.count == 1:
        nominative = f"{NOMINATIVE[gender]} {stem}{NOMINATIVE_ENDING[gender]} {singular}"
        accusative = f"{ACCUSATIVE[gender]} {stem}{ACCUSATIVE_ENDING[gender]} {singular}"
        counted_dative = f"{DATIVE[gender]} {singular}"
    else:
        number = "viele" if scene.count == MANY else NUMBERS[scene.count]
        nominative = accusative = f"{number} {stem}e {plural}"  # drei weiße Flugzeuge
        counted_dative = f"{'vielen' if scene.count == MANY else number} {dative_plural}"
    place_gender, place, in_place = PLACES[scene.kind]
    beside_gender, beside, *_ = PLACES[scene.beside]
    return [
        sentence(f"{nominative} {in_place}."),
        sentence(f"{NOMINATIVE[place_gender]} {place} neben {DATIVE[beside_gender]} {beside}."),
        f"Dieses Luftbild zeigt {ACCUSATIVE[place_gender]} {place} mit {counted_dative}.",
        VARIANTS[scene.kind, scene.variant],
        f"Man sieht {accusative}, und in der Nähe befindet sich {NOMINATIVE[beside_gender]} {beside}.",
    ]
