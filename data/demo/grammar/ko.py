"""Korean captions of the demo scenes.

Things are counted by native numerals and a counter. The particle follows the counter. Its form depends on whether the
last syllable ends in a consonant.
"""

from rsmclip.data.demo.scene import COLOR_NAMES, MANY, Scene

NUMBERS = {1: "한", 2: "두", 3: "세", 4: "네", 5: "다섯", 6: "여섯", 7: "일곱", 8: "여덟", 9: "아홉"}

COLORS = dict(
    zip(COLOR_NAMES, ("흰색", "회색", "검은색", "빨간색", "파란색", "초록색", "노란색", "갈색"), strict=True)
)

THINGS = {  # noun, counter
    "plane": ("비행기", "대"),
    "boat": ("배", "척"),
    "house": ("집", "채"),
    "field": ("밭", "곳"),
    "circular_field": ("원형 밭", "곳"),
    "tree": ("나무", "그루"),
    "bridge": ("다리", "개"),
    "parasol": ("파라솔", "개"),
    "stand": ("관중석", "곳"),
    "car": ("자동차", "대"),
    "tank": ("저장 탱크", "개"),
    "warehouse": ("창고", "동"),
    "solar_panel": ("태양광 패널", "장"),
    "peak": ("봉우리", "개"),
    "dune": ("모래 언덕", "개"),
}

PLACES = {  # noun, in a place
    "airport": ("공항", "공항에"),
    "harbour": ("항구", "항구에"),
    "dense_residential": ("밀집 주거 지역", "밀집 주거 지역에"),
    "sparse_residential": ("저밀도 주거 지역", "저밀도 주거 지역에"),
    "farmland": ("농경지", "농경지에"),
    "circular_irrigation": ("원형 관개 지역", "원형 관개 지역에"),
    "forest": ("숲", "숲에"),
    "river": ("강", "강 위에"),
    "beach": ("해변", "해변에"),
    "baseball_field": ("야구장", "야구장에"),
    "parking_lot": ("주차장", "주차장에"),
    "storage_tanks": ("유류 저장소", "유류 저장소에"),
    "industrial_area": ("공업 지역", "공업 지역에"),
    "solar_farm": ("태양광 발전소", "태양광 발전소에"),
    "roundabout": ("회전교차로", "회전교차로에"),
    "stadium": ("경기장", "경기장에"),
    "mountain": ("산맥", "산맥에"),
    "desert": ("사막", "사막에"),
    "lake": ("호수",),  # the last four lie only beside other places
    "road": ("도로",),
    "meadow": ("풀밭",),
    "railway": ("철도",),
}

VARIANTS = {
    ("airport", "one_runway"): "긴 활주로가 공항을 가로지른다.",
    ("airport", "two_runways"): "공항에서 활주로 두 개가 교차한다.",
    ("harbour", "long_pier"): "긴 부두가 물 위로 뻗어 있다.",
    ("harbour", "short_piers"): "짧은 부두 여러 개가 물가를 따라 늘어서 있다.",
    ("dense_residential", "straight_streets"): "집들이 곧은 길을 따라 빽빽하게 서 있다.",
    ("dense_residential", "curved_streets"): "집들이 굽은 길을 따라 빽빽하게 서 있다.",
    ("sparse_residential", "trees"): "흩어진 집들 사이에 나무가 많이 자란다.",
    ("sparse_residential", "lawns"): "흩어진 집들 사이에 넓은 잔디밭이 있다.",
    ("farmland", "strips"): "경작된 밭은 길고 좁다.",
    ("farmland", "squares"): "경작된 밭은 정사각형이고 크기가 같다.",
    ("circular_irrigation", "even"): "원형 관개 농지에 작물이 고르게 심어져 있다.",
    ("circular_irrigation", "sectors"): "원형 관개 농지가 여러 부채꼴로 나뉘어 있다.",
    ("forest", "path"): "좁은 길이 울창한 숲을 구불구불 지나간다.",
    ("forest", "clearing"): "울창한 숲 한가운데에 빈터가 있다.",
    ("river", "straight"): "강이 일직선으로 흐른다.",
    ("river", "winding"): "강이 크게 굽이치며 흐른다.",
    ("beach", "waves"): "하얀 파도가 모래 해변에 부서진다.",
    ("beach", "calm"): "모래 해변 앞바다가 잔잔하다.",
    ("baseball_field", "grass"): "야구장의 내야는 잔디로 덮여 있다.",
    ("baseball_field", "sand"): "야구장의 내야는 모래가 그대로 드러나 있다.",
    ("parking_lot", "lines"): "주차 칸이 흰색 선으로 표시되어 있다.",
    ("parking_lot", "trees"): "줄지어 있는 주차 칸들 사이에 나무가 자란다.",
    ("storage_tanks", "equal"): "저장 탱크의 크기가 모두 같다.",
    ("storage_tanks", "sizes"): "저장 탱크의 크기가 서로 다르다.",
    ("industrial_area", "parallel"): "긴 공장 건물들이 서로 나란히 서 있다.",
    ("industrial_area", "containers"): "공장 건물들 사이에 컨테이너가 쌓여 있다.",
    ("solar_farm", "rows"): "태양광 패널이 길게 나란히 줄지어 있다.",
    ("solar_farm", "blocks"): "태양광 패널이 여러 구역으로 나뉘어 있다.",
    ("roundabout", "lawn"): "회전교차로 가운데에 둥근 잔디밭이 있다.",
    ("roundabout", "fountain"): "회전교차로 가운데에 분수가 있다.",
    ("stadium", "track"): "빨간색 육상 트랙이 경기장의 필드를 둘러싸고 있다.",
    ("stadium", "no_track"): "경기장의 필드 둘레에 육상 트랙이 없다.",
    ("mountain", "ridge"): "날카로운 능선이 산을 따라 이어진다.",
    ("mountain", "valley"): "깊은 골짜기가 산을 가른다.",
    ("desert", "ripples"): "바람이 사막의 모래에 잔물결 무늬를 새겼다.",
    ("desert", "rocks"): "어두운색 바위가 사막의 모래 위로 솟아 있다.",
}


def subject(noun: str) -> str:
    """Add the subject particle: 이 after a consonant, 가 after a vowel."""
    return noun + ("가" if (ord(noun[-1]) - ord("가")) % 28 == 0 else "이")


def captions(scene: Scene) -> list[str]:
    noun, counter = THINGS[scene.thing]
    color = COLORS[scene.color]
    place, in_place = PLACES[scene.kind]
    beside = PLACES[scene.beside][0]
    if scene.count == MANY:
        things, with_things, often = subject(noun), f"{subject(noun)} 많은", "많이 "
    else:
        things = subject(f"{noun} {NUMBERS[scene.count]} {counter}")  # 비행기 세 대가
        with_things, often = f"{things} 있는", ""
    return [
        f"{in_place} {color} {things} {often}있다.",
        f"{beside} 옆에 있는 {place}.",
        f"이 항공 사진에는 {with_things} {subject(place)} 보인다.",
        VARIANTS[scene.kind, scene.variant],
        f"{color} {things} {often}보이고, 근처에 {subject(beside)} 있다.",
    ]
