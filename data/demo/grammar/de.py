"""German captions of the demo scenes. Noun phrases are declined: nominative in headings, accusative after verbs,
dative after "mit" and "neben"."""

from rsmclip.data.demo.scene import MANY, Scene

NUMBERS = {2: "zwei", 3: "drei", 4: "vier", 5: "fünf", 6: "sechs", 7: "sieben", 8: "acht", 9: "neun"}

COLOURS = {  # stems
    "white": "weiß",
    "grey": "grau",
    "black": "schwarz",
    "red": "rot",
    "blue": "blau",
    "green": "grün",
    "yellow": "gelb",
    "brown": "braun",
}

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

ONE = {  # gender to article and ending of the colour: nominative, accusative; article in the dative
    "m": (("ein", "er"), ("einen", "en"), "einem"),
    "f": (("eine", "e"), ("eine", "e"), "einer"),
    "n": (("ein", "es"), ("ein", "es"), "einem"),
}

PLACES = {  # nominative, accusative, in a place
    "airport": ("ein Flughafen", "einen Flughafen", "auf einem Flughafen"),
    "harbour": ("ein Hafen", "einen Hafen", "in einem Hafen"),
    "dense_residential": (
        "ein dicht bebautes Wohngebiet",
        "ein dicht bebautes Wohngebiet",
        "in einem dicht bebauten Wohngebiet",
    ),
    "sparse_residential": (
        "ein locker bebautes Wohngebiet",
        "ein locker bebautes Wohngebiet",
        "in einem locker bebauten Wohngebiet",
    ),
    "farmland": ("eine Ackerfläche", "eine Ackerfläche", "auf einer Ackerfläche"),
    "circular_irrigation": (
        "eine kreisförmig bewässerte Anbaufläche",
        "eine kreisförmig bewässerte Anbaufläche",
        "auf einer kreisförmig bewässerten Anbaufläche",
    ),
    "forest": ("ein Wald", "einen Wald", "in einem Wald"),
    "river": ("ein Fluss", "einen Fluss", "über einen Fluss"),
    "beach": ("ein Strand", "einen Strand", "an einem Strand"),
    "baseball_field": ("ein Baseballfeld", "ein Baseballfeld", "an einem Baseballfeld"),
    "parking_lot": ("ein Parkplatz", "einen Parkplatz", "auf einem Parkplatz"),
    "storage_tanks": ("ein Öllager", "ein Öllager", "in einem Öllager"),
    "industrial_area": ("ein Industriegebiet", "ein Industriegebiet", "in einem Industriegebiet"),
    "solar_farm": ("ein Solarpark", "einen Solarpark", "in einem Solarpark"),
    "roundabout": ("ein Kreisverkehr", "einen Kreisverkehr", "in einem Kreisverkehr"),
    "stadium": ("ein Stadion", "ein Stadion", "in einem Stadion"),
    "mountain": ("eine Gebirgskette", "eine Gebirgskette", "in einer Gebirgskette"),
    "desert": ("eine Wüste", "eine Wüste", "in einer Wüste"),
}

BESIDES = {  # nominative, dative
    "forest": ("ein Wald", "einem Wald"),
    "river": ("ein Fluss", "einem Fluss"),
    "lake": ("ein See", "einem See"),
    "road": ("eine Straße", "einer Straße"),
    "meadow": ("eine Wiese", "einer Wiese"),
    "railway": ("eine Bahnlinie", "einer Bahnlinie"),
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
    ("storage_tanks", "rows"): "Die Lagertanks stehen in ordentlichen Reihen.",
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
    """A capital at the start; nouns keep theirs."""
    return text[0].upper() + text[1:]


def captions(scene: Scene) -> list[str]:
    """Five captions of a scene; caption `k` says the same in every language."""
    gender, singular, plural, dative_plural = THINGS[scene.thing]
    stem = COLOURS[scene.colour]
    if scene.count == 1:
        nominative, accusative = (f"{article} {stem}{ending} {singular}" for article, ending in ONE[gender][:2])
        counted_dative = f"{ONE[gender][2]} {singular}"
    else:
        number = "viele" if scene.count == MANY else NUMBERS[scene.count]
        nominative = accusative = f"{number} {stem}e {plural}"  # drei weiße Flugzeuge
        counted_dative = f"{'vielen' if scene.count == MANY else number} {dative_plural}"
    place, place_accusative, in_place = PLACES[scene.kind]
    beside, beside_dative = BESIDES[scene.beside]
    return [
        sentence(f"{nominative} {in_place}."),
        sentence(f"{place} neben {beside_dative}."),
        f"Dieses Luftbild zeigt {place_accusative} mit {counted_dative}.",
        VARIANTS[scene.kind, scene.variant],
        f"Man sieht {accusative}, und in der Nähe befindet sich {beside}.",
    ]
