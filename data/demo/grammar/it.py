"""Italian captions of the demo scenes. Numerals and colors agree with the noun in gender and number."""

from rsmclip.data.demo.scene import Scene

NUMBERS = (  # masculine, feminine; the index is the count, MANY is 0
    ("molti", "un", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
    ("molte", "una", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
)

COLORS = {  # masculine and feminine, singular then plural
    "white": ("bianco", "bianca", "bianchi", "bianche"),
    "grey": ("grigio", "grigia", "grigi", "grigie"),
    "black": ("nero", "nera", "neri", "nere"),
    "red": ("rosso", "rossa", "rossi", "rosse"),
    "blue": ("blu", "blu", "blu", "blu"),
    "green": ("verde", "verde", "verdi", "verdi"),
    "yellow": ("giallo", "gialla", "gialli", "gialle"),
    "brown": ("marrone", "marrone", "marroni", "marroni"),
}

THINGS = {  # singular, plural, feminine; none that would take "uno"
    "plane": ("aereo", "aerei", False),
    "boat": ("barca", "barche", True),
    "house": ("casa", "case", True),
    "field": ("campo", "campi", False),
    "circular_field": ("campo circolare", "campi circolari", False),
    "tree": ("albero", "alberi", False),
    "bridge": ("ponte", "ponti", False),
    "parasol": ("ombrellone", "ombrelloni", False),
    "stand": ("tribuna", "tribune", True),
    "car": ("auto", "auto", True),
    "tank": ("serbatoio", "serbatoi", False),
    "warehouse": ("capannone", "capannoni", False),
    "solar_panel": ("pannello solare", "pannelli solari", False),
    "peak": ("cima", "cime", True),
    "dune": ("duna", "dune", True),
}

PLACES = {  # a place, in a place
    "airport": ("un aeroporto", "in un aeroporto"),
    "harbour": ("un porto", "in un porto"),
    "dense_residential": ("una zona residenziale densa", "in una zona residenziale densa"),
    "sparse_residential": ("una zona residenziale a bassa densità", "in una zona residenziale a bassa densità"),
    "farmland": ("un terreno agricolo", "su un terreno agricolo"),
    "circular_irrigation": ("una zona di irrigazione circolare", "in una zona di irrigazione circolare"),
    "forest": ("una foresta", "in una foresta"),
    "river": ("un fiume", "su un fiume"),
    "beach": ("una spiaggia", "su una spiaggia"),
    "baseball_field": ("un campo da baseball", "accanto a un campo da baseball"),
    "parking_lot": ("un parcheggio", "in un parcheggio"),
    "storage_tanks": ("un deposito di petrolio", "in un deposito di petrolio"),
    "industrial_area": ("una zona industriale", "in una zona industriale"),
    "solar_farm": ("un parco solare", "in un parco solare"),
    "roundabout": ("una rotatoria", "su una rotatoria"),
    "stadium": ("uno stadio", "in uno stadio"),
    "mountain": ("una catena montuosa", "in una catena montuosa"),
    "desert": ("un deserto", "in un deserto"),
    "lake": ("un lago",),  # the last four lie only beside other places
    "road": ("una strada",),
    "meadow": ("un prato",),
    "railway": ("una linea ferroviaria",),
}

VARIANTS = {
    ("airport", "one_runway"): "Una lunga pista attraversa l'aeroporto.",
    ("airport", "two_runways"): "Due piste si incrociano nell'aeroporto.",
    ("harbour", "long_pier"): "Un lungo molo si protende nell'acqua.",
    ("harbour", "short_piers"): "Diversi moli corti si allineano lungo la riva.",
    ("dense_residential", "straight_streets"): "Le case sono molto vicine tra loro lungo strade diritte.",
    ("dense_residential", "curved_streets"): "Le case sono molto vicine tra loro lungo strade curve.",
    ("sparse_residential", "trees"): "Molti alberi crescono tra le case sparse.",
    ("sparse_residential", "lawns"): "Tra le case sparse si estendono ampi prati.",
    ("farmland", "strips"): "I campi coltivati sono lunghi e stretti.",
    ("farmland", "squares"): "I campi coltivati sono quadrati e della stessa grandezza.",
    ("circular_irrigation", "even"): "I cerchi irrigati sono coltivati in modo uniforme.",
    ("circular_irrigation", "sectors"): "I cerchi irrigati sono divisi in settori.",
    ("forest", "path"): "Uno stretto sentiero si snoda nella fitta foresta.",
    ("forest", "clearing"): "C'è una radura in mezzo alla fitta foresta.",
    ("river", "straight"): "Il fiume scorre in linea retta.",
    ("river", "winding"): "Il fiume si snoda in ampie anse.",
    ("beach", "waves"): "Onde bianche si infrangono sulla spiaggia sabbiosa.",
    ("beach", "calm"): "Il mare davanti alla spiaggia sabbiosa è calmo.",
    ("baseball_field", "grass"): "Il diamante del campo da baseball è coperto d'erba.",
    ("baseball_field", "sand"): "Il diamante del campo da baseball è di sabbia nuda.",
    ("parking_lot", "lines"): "I posti auto sono segnati con linee bianche.",
    ("parking_lot", "trees"): "Tra le file di posti auto crescono degli alberi.",
    ("storage_tanks", "equal"): "I serbatoi di stoccaggio sono tutti della stessa dimensione.",
    ("storage_tanks", "sizes"): "I serbatoi di stoccaggio sono di dimensioni diverse.",
    ("industrial_area", "parallel"): "I lunghi edifici industriali sono paralleli tra loro.",
    ("industrial_area", "containers"): "Tra gli edifici industriali sono impilati dei container.",
    ("solar_farm", "rows"): "I pannelli solari sono disposti in lunghe file parallele.",
    ("solar_farm", "blocks"): "I pannelli solari sono disposti in diversi blocchi separati.",
    ("roundabout", "lawn"): "Al centro della rotatoria c'è un prato rotondo.",
    ("roundabout", "fountain"): "Al centro della rotatoria c'è una fontana.",
    ("stadium", "track"): "Una pista di atletica rossa circonda il campo dello stadio.",
    ("stadium", "no_track"): "Lo stadio non ha una pista di atletica intorno al campo.",
    ("mountain", "ridge"): "Una cresta affilata percorre le montagne.",
    ("mountain", "valley"): "Una valle profonda taglia le montagne.",
    ("desert", "ripples"): "Il vento ha disegnato sottili increspature nella sabbia del deserto.",
    ("desert", "rocks"): "Rocce scure emergono dalla sabbia del deserto.",
}


def captions(scene: Scene) -> list[str]:
    singular, plural, feminine = THINGS[scene.thing]
    one = scene.count == 1
    counted = f"{NUMBERS[feminine][scene.count]} {singular if one else plural}"  # tre aerei
    counted = counted.replace("una auto", "un'auto")
    colored = f"{counted} {COLORS[scene.color][feminine + 2 * (not one)]}"
    place, in_place = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    return [
        f"{colored} {in_place}.".capitalize(),
        f"{place} accanto a {beside}.".capitalize(),
        f"Questa immagine aerea mostra {place} con {counted}.",
        VARIANTS[scene.kind, scene.variant],
        f"{'Si vede' if one else 'Si vedono'} {colored} e nelle vicinanze c'è {beside}.",
    ]
