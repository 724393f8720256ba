"""Portuguese captions of the demo scenes. Numerals and colors agree with the noun in gender and number."""

from rsmclip.data.demo.scene import Scene

NUMBERS = (  # masculine, feminine; the index is the count, MANY is 0
    ("muitos", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove"),
    ("muitas", "uma", "duas", "três", "quatro", "cinco", "seis", "sete", "oito", "nove"),
)

COLORS = {  # masculine and feminine, singular then plural
    "white": ("branco", "branca", "brancos", "brancas"),
    "grey": ("cinzento", "cinzenta", "cinzentos", "cinzentas"),
    "black": ("preto", "preta", "pretos", "pretas"),
    "red": ("vermelho", "vermelha", "vermelhos", "vermelhas"),
    "blue": ("azul", "azul", "azuis", "azuis"),
    "green": ("verde", "verde", "verdes", "verdes"),
    "yellow": ("amarelo", "amarela", "amarelos", "amarelas"),
    "brown": ("marrom", "marrom", "marrons", "marrons"),
}

THINGS = {  # singular, plural, feminine
    "plane": ("avião", "aviões", False),
    "boat": ("barco", "barcos", False),
    "house": ("casa", "casas", True),
    "field": ("campo", "campos", False),
    "circular_field": ("campo circular", "campos circulares", False),
    "tree": ("árvore", "árvores", True),
    "bridge": ("ponte", "pontes", True),
    "parasol": ("guarda-sol", "guarda-sóis", False),
    "stand": ("arquibancada", "arquibancadas", True),
    "car": ("carro", "carros", False),
    "tank": ("tanque", "tanques", False),
    "warehouse": ("armazém", "armazéns", False),
    "solar_panel": ("painel solar", "painéis solares", False),
    "peak": ("pico", "picos", False),
    "dune": ("duna", "dunas", True),
}

PLACES = {  # a place, in a place
    "airport": ("um aeroporto", "num aeroporto"),
    "harbour": ("um porto", "num porto"),
    "dense_residential": ("uma área residencial densa", "numa área residencial densa"),
    "sparse_residential": ("uma área residencial esparsa", "numa área residencial esparsa"),
    "farmland": ("um terreno agrícola", "num terreno agrícola"),
    "circular_irrigation": ("uma área de irrigação circular", "numa área de irrigação circular"),
    "forest": ("uma floresta", "numa floresta"),
    "river": ("um rio", "sobre um rio"),
    "beach": ("uma praia", "numa praia"),
    "baseball_field": ("um campo de beisebol", "junto a um campo de beisebol"),
    "parking_lot": ("um estacionamento", "num estacionamento"),
    "storage_tanks": ("um depósito de petróleo", "num depósito de petróleo"),
    "industrial_area": ("uma área industrial", "numa área industrial"),
    "solar_farm": ("um parque solar", "num parque solar"),
    "roundabout": ("uma rotatória", "numa rotatória"),
    "stadium": ("um estádio", "num estádio"),
    "mountain": ("uma cordilheira", "numa cordilheira"),
    "desert": ("um deserto", "num deserto"),
    "lake": ("um lago",),  # the last four lie only beside other places
    "road": ("uma estrada",),
    "meadow": ("um prado",),
    "railway": ("uma linha férrea",),
}

VARIANTS = {
    ("airport", "one_runway"): "Uma longa pista atravessa o aeroporto.",
    ("airport", "two_runways"): "Duas pistas cruzam-se no aeroporto.",
    ("harbour", "long_pier"): "Um longo píer avança pela água.",
    ("harbour", "short_piers"): "Vários píeres curtos alinham-se ao longo da margem.",
    ("dense_residential", "straight_streets"): "As casas ficam muito próximas umas das outras ao longo de ruas retas.",
    ("dense_residential", "curved_streets"): "As casas ficam muito próximas umas das outras ao longo de ruas curvas.",
    ("sparse_residential", "trees"): "Crescem muitas árvores entre as casas dispersas.",
    ("sparse_residential", "lawns"): "Há amplos gramados entre as casas dispersas.",
    ("farmland", "strips"): "Os campos cultivados são longos e estreitos.",
    ("farmland", "squares"): "Os campos cultivados são quadrados e do mesmo tamanho.",
    ("circular_irrigation", "even"): "Os círculos irrigados estão plantados de modo uniforme.",
    ("circular_irrigation", "sectors"): "Os círculos irrigados estão divididos em setores.",
    ("forest", "path"): "Um caminho estreito serpenteia pela floresta densa.",
    ("forest", "clearing"): "Há uma clareira no meio da floresta densa.",
    ("river", "straight"): "O rio corre em linha reta.",
    ("river", "winding"): "O rio serpenteia em curvas largas.",
    ("beach", "waves"): "Ondas brancas quebram na praia de areia.",
    ("beach", "calm"): "O mar junto à praia de areia está calmo.",
    ("baseball_field", "grass"): "O diamante do campo de beisebol está coberto de grama.",
    ("baseball_field", "sand"): "O diamante do campo de beisebol é de areia nua.",
    ("parking_lot", "lines"): "As vagas de estacionamento estão marcadas com linhas brancas.",
    ("parking_lot", "trees"): "Crescem árvores entre as fileiras de vagas de estacionamento.",
    ("storage_tanks", "equal"): "Os tanques de armazenamento são todos do mesmo tamanho.",
    ("storage_tanks", "sizes"): "Os tanques de armazenamento são de tamanhos diferentes.",
    ("industrial_area", "parallel"): "Os longos edifícios fabris são paralelos entre si.",
    ("industrial_area", "containers"): "Há contêineres empilhados entre os edifícios fabris.",
    ("solar_farm", "rows"): "Os painéis solares estão dispostos em longas fileiras paralelas.",
    ("solar_farm", "blocks"): "Os painéis solares estão dispostos em vários blocos separados.",
    ("roundabout", "lawn"): "Há um gramado redondo no centro da rotatória.",
    ("roundabout", "fountain"): "Há uma fonte no centro da rotatória.",
    ("stadium", "track"): "Uma pista de atletismo vermelha rodeia o gramado do estádio.",
    ("stadium", "no_track"): "O estádio não tem pista de atletismo em volta do gramado.",
    ("mountain", "ridge"): "Uma crista aguçada percorre as montanhas.",
    ("mountain", "valley"): "Um vale profundo corta as montanhas.",
    ("desert", "ripples"): "O vento desenhou finas ondulações na areia do deserto.",
    ("desert", "rocks"): "Rochas escuras erguem-se da areia do deserto.",
}


def captions(scene: Scene) -> list[str]:
    singular, plural, feminine = THINGS[scene.thing]
    one = scene.count == 1
    counted = f"{NUMBERS[feminine][scene.count]} {singular if one else plural}"  # três aviões
    colored = f"{counted} {COLORS[scene.color][feminine + 2 * (not one)]}"
    place, in_place = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    return [
        f"{colored} {in_place}.".capitalize(),
        f"{place} ao lado de {beside}.".capitalize(),
        f"Esta imagem aérea mostra {place} com {counted}.",
        VARIANTS[scene.kind, scene.variant],
        f"{'Vê-se' if one else 'Veem-se'} {colored} e há {beside} por perto.",
    ]
