"""Russian captions of the demo scenes.

The noun is in the genitive singular after 2, 3 and 4, and in the genitive plural after 5 and more. Number and noun are
in the instrumental after «с».
"""

from rsmclip.data.demo.scene import MANY, Scene

NUMBERS = {2: "два", 3: "три", 4: "четыре", 5: "пять", 6: "шесть", 7: "семь", 8: "восемь", 9: "девять"}
INSTRUMENTAL = {2: "двумя", 3: "тремя", 4: "четырьмя", 5: "пятью", 6: "шестью", 7: "семью", 8: "восемью", 9: "девятью"}
ONE = {  # gender to one in the nominative and instrumental, and to «is seen»
    "m": ("один", "одним", "виден"),
    "f": ("одна", "одной", "видна"),
    "n": ("одно", "одним", "видно"),
}

COLORS = {  # nominative: masculine, feminine, neuter, plural; genitive plural
    "white": ("белый", "белая", "белое", "белые", "белых"),
    "grey": ("серый", "серая", "серое", "серые", "серых"),
    "black": ("чёрный", "чёрная", "чёрное", "чёрные", "чёрных"),
    "red": ("красный", "красная", "красное", "красные", "красных"),
    "blue": ("синий", "синяя", "синее", "синие", "синих"),
    "green": ("зелёный", "зелёная", "зелёное", "зелёные", "зелёных"),
    "yellow": ("жёлтый", "жёлтая", "жёлтое", "жёлтые", "жёлтых"),
    "brown": ("коричневый", "коричневая", "коричневое", "коричневые", "коричневых"),
}

THINGS = {  # gender; nominative, after 2–4, genitive plural, instrumental singular and plural
    "plane": ("m", "самолёт", "самолёта", "самолётов", "самолётом", "самолётами"),
    "boat": ("f", "лодка", "лодки", "лодок", "лодкой", "лодками"),
    "house": ("m", "дом", "дома", "домов", "домом", "домами"),
    "field": ("n", "поле", "поля", "полей", "полем", "полями"),
    "circular_field": ("n", "круглое поле", "круглых поля", "круглых полей", "круглым полем", "круглыми полями"),
    "tree": ("n", "дерево", "дерева", "деревьев", "деревом", "деревьями"),
    "bridge": ("m", "мост", "моста", "мостов", "мостом", "мостами"),
    "parasol": ("m", "зонт", "зонта", "зонтов", "зонтом", "зонтами"),
    "stand": ("f", "трибуна", "трибуны", "трибун", "трибуной", "трибунами"),
    "car": ("f", "машина", "машины", "машин", "машиной", "машинами"),
    "tank": ("m", "резервуар", "резервуара", "резервуаров", "резервуаром", "резервуарами"),
    "warehouse": ("m", "склад", "склада", "складов", "складом", "складами"),
    "solar_panel": (
        "f",
        "солнечная панель",
        "солнечные панели",
        "солнечных панелей",
        "солнечной панелью",
        "солнечными панелями",
    ),
    "peak": ("f", "вершина", "вершины", "вершин", "вершиной", "вершинами"),
    "dune": ("m", "бархан", "бархана", "барханов", "барханом", "барханами"),
}

PLACES = {  # nominative, in a place
    "airport": ("аэропорт", "в аэропорту"),
    "harbour": ("порт", "в порту"),
    "dense_residential": ("плотно застроенный жилой район", "в плотно застроенном жилом районе"),
    "sparse_residential": ("редко застроенный жилой район", "в редко застроенном жилом районе"),
    "farmland": ("участок сельхозугодий", "на участке сельхозугодий"),
    "circular_irrigation": ("участок кругового орошения", "на участке кругового орошения"),
    "forest": ("лес", "в лесу"),
    "river": ("река", "через реку"),
    "beach": ("пляж", "на пляже"),
    "baseball_field": ("бейсбольное поле", "у бейсбольного поля"),
    "parking_lot": ("парковка", "на парковке"),
    "storage_tanks": ("нефтебаза", "на нефтебазе"),
    "industrial_area": ("промышленная зона", "в промышленной зоне"),
    "solar_farm": ("солнечная электростанция", "на солнечной электростанции"),
    "roundabout": ("круговой перекрёсток", "на круговом перекрёстке"),
    "stadium": ("стадион", "на стадионе"),
    "mountain": ("горная цепь", "в горной цепи"),
    "desert": ("пустыня", "в пустыне"),
}

BESIDES = {  # nominative, instrumental
    "forest": ("лес", "лесом"),
    "river": ("река", "рекой"),
    "lake": ("озеро", "озером"),
    "road": ("дорога", "дорогой"),
    "meadow": ("луг", "лугом"),
    "railway": ("железная дорога", "железной дорогой"),
}

VARIANTS = {
    ("airport", "one_runway"): "Длинная взлётная полоса пересекает аэропорт.",
    ("airport", "two_runways"): "В аэропорту пересекаются две взлётные полосы.",
    ("harbour", "long_pier"): "Длинный пирс выдаётся в воду.",
    ("harbour", "short_piers"): "Вдоль берега расположены несколько коротких пирсов.",
    ("dense_residential", "straight_streets"): "Дома тесно стоят вдоль прямых улиц.",
    ("dense_residential", "curved_streets"): "Дома тесно стоят вдоль изогнутых улиц.",
    ("sparse_residential", "trees"): "Между разбросанными домами растёт много деревьев.",
    ("sparse_residential", "lawns"): "Между разбросанными домами раскинулись широкие газоны.",
    ("farmland", "strips"): "Возделанные поля длинные и узкие.",
    ("farmland", "squares"): "Возделанные поля квадратные и одинаковые по размеру.",
    ("circular_irrigation", "even"): "Орошаемые круги засажены равномерно.",
    ("circular_irrigation", "sectors"): "Орошаемые круги разделены на секторы.",
    ("forest", "path"): "Через густой лес вьётся узкая тропа.",
    ("forest", "clearing"): "Посреди густого леса есть поляна.",
    ("river", "straight"): "Река течёт по прямой линии.",
    ("river", "winding"): "Река петляет широкими излучинами.",
    ("beach", "waves"): "Белые волны накатывают на песчаный пляж.",
    ("beach", "calm"): "Море у песчаного пляжа спокойно.",
    ("baseball_field", "grass"): "Внутренняя часть бейсбольного поля покрыта травой.",
    ("baseball_field", "sand"): "Внутренняя часть бейсбольного поля — голый песок.",
    ("parking_lot", "lines"): "Парковочные места размечены белыми линиями.",
    ("parking_lot", "trees"): "Между рядами парковочных мест растут деревья.",
    ("storage_tanks", "equal"): "Все резервуары одинакового размера.",
    ("storage_tanks", "sizes"): "Резервуары различаются размерами.",
    ("industrial_area", "parallel"): "Длинные заводские корпуса стоят параллельно друг другу.",
    ("industrial_area", "containers"): "Между заводскими корпусами штабелями стоят контейнеры.",
    ("solar_farm", "rows"): "Солнечные панели расположены длинными параллельными рядами.",
    ("solar_farm", "blocks"): "Солнечные панели расположены несколькими отдельными блоками.",
    ("roundabout", "lawn"): "В центре кругового перекрёстка находится круглый газон.",
    ("roundabout", "fountain"): "В центре кругового перекрёстка находится фонтан.",
    ("stadium", "track"): "Красная беговая дорожка окружает поле стадиона.",
    ("stadium", "no_track"): "На стадионе нет беговой дорожки вокруг поля.",
    ("mountain", "ridge"): "Через горы тянется острый гребень.",
    ("mountain", "valley"): "Глубокая долина прорезает горы.",
    ("desert", "ripples"): "Ветер нарисовал на песке пустыни мелкую рябь.",
    ("desert", "rocks"): "Тёмные скалы поднимаются из песка пустыни.",
}


def counted(scene: Scene) -> tuple[str, str, str]:
    """Return the colored things in the nominative, the things after «с», and the form of «is seen» that agrees."""
    gender, nominative, after_two, genitive_plural, instrumental, instrumental_plural = THINGS[scene.thing]
    masculine, feminine, neuter, plural, color_genitive = COLORS[scene.color]
    if scene.count == MANY:
        return f"много {color_genitive} {genitive_plural}", f"со множеством {genitive_plural}", "видно"
    if scene.count == 1:
        color = {"m": masculine, "f": feminine, "n": neuter}[gender]
        one, one_instrumental, seen = ONE[gender]
        return f"{one} {color} {nominative}", f"с {one_instrumental} {instrumental}", seen
    number = "две" if scene.count == 2 and gender == "f" else NUMBERS[scene.count]
    with_things = f"с {INSTRUMENTAL[scene.count]} {instrumental_plural}"
    if scene.count <= 4:
        color = plural if gender == "f" else color_genitive  # две белые лодки, but два белых дома
        return f"{number} {color} {after_two}", with_things, "видны"
    return f"{number} {color_genitive} {genitive_plural}", with_things, "видно"


def captions(scene: Scene) -> list[str]:
    colored, with_things, seen = counted(scene)
    place, in_place = PLACES[scene.kind]
    beside, beside_instrumental = BESIDES[scene.beside]
    return [
        f"{colored} {in_place}.".capitalize(),
        f"{place} рядом с {beside_instrumental}.".capitalize(),
        f"На этом аэроснимке — {place} {with_things}.",
        VARIANTS[scene.kind, scene.variant],
        f"{seen} {colored}, а рядом находится {beside}.".capitalize(),
    ]
