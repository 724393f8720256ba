"""French captions of the demo scenes. Numerals and colors agree with the noun in gender and number."""

from rsmclip.data.demo.scene import Scene

NUMBERS = (  # masculine, feminine; the index is the count, MANY is 0
    ("de nombreux", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    ("de nombreuses", "une", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
)

COLORS = {  # masculine and feminine, singular then plural
    "white": ("blanc", "blanche", "blancs", "blanches"),
    "grey": ("gris", "grise", "gris", "grises"),
    "black": ("noir", "noire", "noirs", "noires"),
    "red": ("rouge", "rouge", "rouges", "rouges"),
    "blue": ("bleu", "bleue", "bleus", "bleues"),
    "green": ("vert", "verte", "verts", "vertes"),
    "yellow": ("jaune", "jaune", "jaunes", "jaunes"),
    "brown": ("marron", "marron", "marron", "marron"),
}

THINGS = {  # singular, plural, feminine
    "plane": ("avion", "avions", False),
    "boat": ("bateau", "bateaux", False),
    "house": ("maison", "maisons", True),
    "field": ("champ", "champs", False),
    "circular_field": ("champ circulaire", "champs circulaires", False),
    "tree": ("arbre", "arbres", False),
    "bridge": ("pont", "ponts", False),
    "parasol": ("parasol", "parasols", False),
    "stand": ("tribune", "tribunes", True),
    "car": ("voiture", "voitures", True),
    "tank": ("réservoir", "réservoirs", False),
    "warehouse": ("entrepôt", "entrepôts", False),
    "solar_panel": ("panneau solaire", "panneaux solaires", False),
    "peak": ("sommet", "sommets", False),
    "dune": ("dune", "dunes", True),
}

PLACES = {  # a place, in a place
    "airport": ("un aéroport", "dans un aéroport"),
    "harbour": ("un port", "dans un port"),
    "dense_residential": ("une zone résidentielle dense", "dans une zone résidentielle dense"),
    "sparse_residential": ("une zone résidentielle peu dense", "dans une zone résidentielle peu dense"),
    "farmland": ("un terrain agricole", "sur un terrain agricole"),
    "circular_irrigation": ("une zone d'irrigation circulaire", "dans une zone d'irrigation circulaire"),
    "forest": ("une forêt", "dans une forêt"),
    "river": ("une rivière", "sur une rivière"),
    "beach": ("une plage", "sur une plage"),
    "baseball_field": ("un terrain de baseball", "au bord d'un terrain de baseball"),
    "parking_lot": ("un parking", "sur un parking"),
    "storage_tanks": ("un dépôt pétrolier", "dans un dépôt pétrolier"),
    "industrial_area": ("une zone industrielle", "dans une zone industrielle"),
    "solar_farm": ("un parc solaire", "dans un parc solaire"),
    "roundabout": ("un rond-point", "sur un rond-point"),
    "stadium": ("un stade", "dans un stade"),
    "mountain": ("une chaîne de montagnes", "dans une chaîne de montagnes"),
    "desert": ("un désert", "dans un désert"),
    "lake": ("un lac",),  # the last four lie only beside other places
    "road": ("une route",),
    "meadow": ("une prairie",),
    "railway": ("une voie ferrée",),
}

VARIANTS = {
    ("airport", "one_runway"): "Une longue piste traverse l'aéroport.",
    ("airport", "two_runways"): "Deux pistes se croisent dans l'aéroport.",
    ("harbour", "long_pier"): "Une longue jetée s'avance dans l'eau.",
    ("harbour", "short_piers"): "Plusieurs jetées courtes bordent le rivage.",
    ("dense_residential", "straight_streets"): "Les maisons sont serrées le long de rues droites.",
    ("dense_residential", "curved_streets"): "Les maisons sont serrées le long de rues courbes.",
    ("sparse_residential", "trees"): "De nombreux arbres poussent entre les maisons dispersées.",
    ("sparse_residential", "lawns"): "De vastes pelouses s'étendent entre les maisons dispersées.",
    ("farmland", "strips"): "Les champs cultivés sont longs et étroits.",
    ("farmland", "squares"): "Les champs cultivés sont carrés et de même taille.",
    ("circular_irrigation", "even"): "Les cercles irrigués sont plantés de façon uniforme.",
    ("circular_irrigation", "sectors"): "Les cercles irrigués sont divisés en secteurs.",
    ("forest", "path"): "Un sentier étroit serpente à travers la forêt dense.",
    ("forest", "clearing"): "Il y a une clairière au milieu de la forêt dense.",
    ("river", "straight"): "La rivière coule en ligne droite.",
    ("river", "winding"): "La rivière serpente en larges méandres.",
    ("beach", "waves"): "Des vagues blanches se brisent sur la plage de sable.",
    ("beach", "calm"): "La mer devant la plage de sable est calme.",
    ("baseball_field", "grass"): "Le champ intérieur du terrain de baseball est couvert d'herbe.",
    ("baseball_field", "sand"): "Le champ intérieur du terrain de baseball est en sable nu.",
    ("parking_lot", "lines"): "Les places de parking sont marquées par des lignes blanches.",
    ("parking_lot", "trees"): "Des arbres poussent entre les rangées de places de parking.",
    ("storage_tanks", "equal"): "Les réservoirs de stockage sont tous de la même taille.",
    ("storage_tanks", "sizes"): "Les réservoirs de stockage sont de tailles différentes.",
    ("industrial_area", "parallel"): "Les longs bâtiments d'usine sont parallèles les uns aux autres.",
    ("industrial_area", "containers"): "Des conteneurs sont empilés entre les bâtiments d'usine.",
    ("solar_farm", "rows"): "Les panneaux solaires sont disposés en longues rangées parallèles.",
    ("solar_farm", "blocks"): "Les panneaux solaires sont disposés en plusieurs blocs séparés.",
    ("roundabout", "lawn"): "Il y a une pelouse ronde au centre du rond-point.",
    ("roundabout", "fountain"): "Il y a une fontaine au centre du rond-point.",
    ("stadium", "track"): "Une piste d'athlétisme rouge entoure la pelouse du stade.",
    ("stadium", "no_track"): "Le stade n'a pas de piste d'athlétisme autour de la pelouse.",
    ("mountain", "ridge"): "Une crête acérée parcourt les montagnes.",
    ("mountain", "valley"): "Une vallée profonde entaille les montagnes.",
    ("desert", "ripples"): "Le vent a dessiné de fines rides dans le sable du désert.",
    ("desert", "rocks"): "Des rochers sombres émergent du sable du désert.",
}


def captions(scene: Scene) -> list[str]:
    singular, plural, feminine = THINGS[scene.thing]
    one = scene.count == 1
    counted = f"{NUMBERS[feminine][scene.count]} {singular if one else plural}"  # trois avions
    colored = f"{counted} {COLORS[scene.color][feminine + 2 * (not one)]}"
    place, in_place = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    return [
        f"{colored} {in_place}.".capitalize(),
        f"{place} à côté d'{beside}.".capitalize(),
        f"Cette image aérienne montre {place} avec {counted}.",
        VARIANTS[scene.kind, scene.variant],
        f"On voit {colored} et il y a {beside} à proximité.",
    ]
