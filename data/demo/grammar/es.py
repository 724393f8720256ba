"""Spanish captions of the demo scenes. Numerals and colors agree with the noun in gender and number."""

from rsmclip.data.demo.scene import Scene

NUMBERS = (  # masculine, feminine; the index is the count, MANY is 0
    ("muchos", "un", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
    ("muchas", "una", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
)

COLORS = {  # masculine and feminine, singular then plural
    "white": ("blanco", "blanca", "blancos", "blancas"),
    "grey": ("gris", "gris", "grises", "grises"),
    "black": ("negro", "negra", "negros", "negras"),
    "red": ("rojo", "roja", "rojos", "rojas"),
    "blue": ("azul", "azul", "azules", "azules"),
    "green": ("verde", "verde", "verdes", "verdes"),
    "yellow": ("amarillo", "amarilla", "amarillos", "amarillas"),
    "brown": ("marrón", "marrón", "marrones", "marrones"),
}

THINGS = {  # singular, plural, feminine
    "plane": ("avión", "aviones", False),
    "boat": ("barco", "barcos", False),
    "house": ("casa", "casas", True),
    "field": ("campo", "campos", False),
    "circular_field": ("campo circular", "campos circulares", False),
    "tree": ("árbol", "árboles", False),
    "bridge": ("puente", "puentes", False),
    "parasol": ("sombrilla", "sombrillas", True),
    "stand": ("grada", "gradas", True),
    "car": ("coche", "coches", False),
    "tank": ("tanque", "tanques", False),
    "warehouse": ("almacén", "almacenes", False),
    "solar_panel": ("panel solar", "paneles solares", False),
    "peak": ("pico", "picos", False),
    "dune": ("duna", "dunas", True),
}

PLACES = {  # a place, in a place
    "airport": ("un aeropuerto", "en un aeropuerto"),
    "harbour": ("un puerto", "en un puerto"),
    "dense_residential": ("una zona residencial densa", "en una zona residencial densa"),
    "sparse_residential": ("una zona residencial dispersa", "en una zona residencial dispersa"),
    "farmland": ("un terreno agrícola", "en un terreno agrícola"),
    "circular_irrigation": ("una zona de riego circular", "en una zona de riego circular"),
    "forest": ("un bosque", "en un bosque"),
    "river": ("un río", "sobre un río"),
    "beach": ("una playa", "en una playa"),
    "baseball_field": ("un campo de béisbol", "junto a un campo de béisbol"),
    "parking_lot": ("un aparcamiento", "en un aparcamiento"),
    "storage_tanks": ("un depósito de petróleo", "en un depósito de petróleo"),
    "industrial_area": ("una zona industrial", "en una zona industrial"),
    "solar_farm": ("un parque solar", "en un parque solar"),
    "roundabout": ("una rotonda", "en una rotonda"),
    "stadium": ("un estadio", "en un estadio"),
    "mountain": ("una cordillera", "en una cordillera"),
    "desert": ("un desierto", "en un desierto"),
    "lake": ("un lago",),  # the last four lie only beside other places
    "road": ("una carretera",),
    "meadow": ("un prado",),
    "railway": ("una vía férrea",),
}

VARIANTS = {
    ("airport", "one_runway"): "Una larga pista atraviesa el aeropuerto.",
    ("airport", "two_runways"): "Dos pistas se cruzan en el aeropuerto.",
    ("harbour", "long_pier"): "Un largo muelle se adentra en el agua.",
    ("harbour", "short_piers"): "Varios muelles cortos bordean la orilla.",
    ("dense_residential", "straight_streets"): "Las casas están muy juntas a lo largo de calles rectas.",
    ("dense_residential", "curved_streets"): "Las casas están muy juntas a lo largo de calles curvas.",
    ("sparse_residential", "trees"): "Crecen muchos árboles entre las casas dispersas.",
    ("sparse_residential", "lawns"): "Hay amplios céspedes entre las casas dispersas.",
    ("farmland", "strips"): "Los campos cultivados son largos y estrechos.",
    ("farmland", "squares"): "Los campos cultivados son cuadrados y del mismo tamaño.",
    ("circular_irrigation", "even"): "Los círculos de riego están plantados de manera uniforme.",
    ("circular_irrigation", "sectors"): "Los círculos de riego están divididos en sectores.",
    ("forest", "path"): "Un sendero estrecho serpentea por el bosque denso.",
    ("forest", "clearing"): "Hay un claro en medio del bosque denso.",
    ("river", "straight"): "El río fluye en línea recta.",
    ("river", "winding"): "El río serpentea en amplias curvas.",
    ("beach", "waves"): "Rompen olas blancas en la playa de arena.",
    ("beach", "calm"): "El mar frente a la playa de arena está en calma.",
    ("baseball_field", "grass"): "El cuadro interior del campo de béisbol está cubierto de césped.",
    ("baseball_field", "sand"): "El cuadro interior del campo de béisbol es de arena desnuda.",
    ("parking_lot", "lines"): "Las plazas de aparcamiento están marcadas con líneas blancas.",
    ("parking_lot", "trees"): "Crecen árboles entre las filas de plazas de aparcamiento.",
    ("storage_tanks", "equal"): "Los tanques de almacenamiento son todos del mismo tamaño.",
    ("storage_tanks", "sizes"): "Los tanques de almacenamiento son de distintos tamaños.",
    ("industrial_area", "parallel"): "Las largas naves industriales son paralelas entre sí.",
    ("industrial_area", "containers"): "Hay contenedores apilados entre las naves industriales.",
    ("solar_farm", "rows"): "Los paneles solares están dispuestos en largas filas paralelas.",
    ("solar_farm", "blocks"): "Los paneles solares están dispuestos en varios bloques separados.",
    ("roundabout", "lawn"): "Hay una zona redonda de césped en el centro de la rotonda.",
    ("roundabout", "fountain"): "Hay una fuente en el centro de la rotonda.",
    ("stadium", "track"): "Una pista de atletismo roja rodea el terreno de juego del estadio.",
    ("stadium", "no_track"): "El estadio no tiene pista de atletismo alrededor del terreno de juego.",
    ("mountain", "ridge"): "Una cresta afilada recorre las montañas.",
    ("mountain", "valley"): "Un valle profundo atraviesa las montañas.",
    ("desert", "ripples"): "El viento ha dibujado finas ondas en la arena del desierto.",
    ("desert", "rocks"): "Unas rocas oscuras sobresalen de la arena del desierto.",
}


def captions(scene: Scene) -> list[str]:
    singular, plural, feminine = THINGS[scene.thing]
    one = scene.count == 1
    counted = f"{NUMBERS[feminine][scene.count]} {singular if one else plural}"  # tres aviones
    colored = f"{counted} {COLORS[scene.color][feminine + 2 * (not one)]}"
    place, in_place = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    return [
        f"{colored} {in_place}.".capitalize(),
        f"{place} junto a {beside}.".capitalize(),
        f"Esta imagen aérea muestra {place} con {counted}.",
        VARIANTS[scene.kind, scene.variant],
        f"{'Se ve' if one else 'Se ven'} {colored} y hay {beside} cerca.",
    ]
