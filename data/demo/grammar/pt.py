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
    "brown": ("castanho", "castanha", "castanhos", "castanhas"),
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
    "stand": ("bancada", "bancadas", True),
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
    "dense_residential": ("uma zona residencial densa", "numa zona residencial densa"),
    "sparse_residential": ("uma zona residencial esparsa", "numa zona residencial esparsa"),
    "farmland": ("um terreno agrícola", "num terreno agrícola"),
    "circular_irrigation": ("uma zona de irrigação circular", "numa zona de irrigação circular"),
    "forest": ("uma floresta", "numa floresta"),
    "river": ("um rio", "sobre um rio"),
    "beach": ("uma praia", "numa praia"),
    "baseball_field": ("um campo de basebol", "num campo de basebol"),
    "parking_lot": ("um parque de estacionamento", "num parque de estacionamento"),
    "storage_tanks": ("um depósito de petróleo", "num depósito de petróleo"),
    "industrial_area": ("uma zona industrial", "numa zona industrial"),
    "solar_farm": ("um parque solar", "num parque solar"),
    "roundabout": ("uma rotunda", "numa rotunda"),
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
    ("harbour", "long_pier"): "Um longo cais avança água adentro.",
    ("harbour", "short_piers"): "Vários cais curtos alinham-se ao longo da margem.",
    ("dense_residential", "straight_streets"): "As casas ficam muito próximas umas das outras ao longo de ruas retas.",
    ("dense_residential", "curved_streets"): "As casas ficam muito próximas umas das outras ao longo de ruas curvas.",
    ("sparse_residential", "trees"): "Crescem muitas árvores entre as casas dispersas.",
    ("sparse_residential", "lawns"): "Há amplos relvados entre as casas dispersas.",
    ("farmland", "strips"): "Os campos cultivados são longos e estreitos.",
    ("farmland", "squares"): "Os campos cultivados são quadrados e do mesmo tamanho.",
    ("circular_irrigation", "even"): "Os círculos irrigados estão plantados de modo uniforme.",
    ("circular_irrigation", "sectors"): "Os círculos irrigados estão divididos em setores.",
    ("forest", "path"): "Um caminho estreito serpenteia pela floresta densa.",
    ("forest", "clearing"): "Há uma clareira no meio da floresta densa.",
    ("river", "straight"): "O rio corre em linha reta.",
    ("river", "winding"): "O rio serpenteia em curvas largas.",
    ("beach", "waves"): "Ondas brancas rebentam na praia de areia.",
    ("beach", "calm"): "O mar junto à praia de areia está calmo.",
    ("baseball_field", "grass"): "O campo interno do campo de basebol está coberto de relva.",
    ("baseball_field", "sand"): "O campo interno do campo de basebol é de areia nua.",
    ("parking_lot", "lines"): "Os lugares de estacionamento estão marcados com linhas brancas.",
    ("parking_lot", "trees"): "Crescem árvores entre as filas de lugares de estacionamento.",
    ("storage_tanks", "rows"): "Os tanques de armazenamento estão dispostos em filas ordenadas.",
    ("storage_tanks", "sizes"): "Os tanques de armazenamento são de tamanhos diferentes.",
    ("industrial_area", "parallel"): "Os longos edifícios fabris são paralelos entre si.",
    ("industrial_area", "containers"): "Há contentores empilhados entre os edifícios fabris.",
    ("solar_farm", "rows"): "Os painéis solares estão dispostos em longas filas paralelas.",
    ("solar_farm", "blocks"): "Os painéis solares estão dispostos em vários blocos separados.",
    ("roundabout", "lawn"): "Há um relvado redondo no centro da rotunda.",
    ("roundabout", "fountain"): "Há uma fonte no centro da rotunda.",
    ("stadium", "track"): "Uma pista de atletismo vermelha rodeia o relvado do estádio.",
    ("stadium", "no_track"): "O estádio não tem pista de atletismo em volta do relvado.",
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
