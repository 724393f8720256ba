"""Chinese captions of the demo scenes. Every noun has its own classifier. "Two" before a classifier is 两, not 二."""

from rsmclip.data.demo.scene import COLOR_NAMES, MANY, Scene

NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四", 5: "五", 6: "六", 7: "七", 8: "八", 9: "九"}

COLORS = dict(zip(COLOR_NAMES, ("白色", "灰色", "黑色", "红色", "蓝色", "绿色", "黄色", "棕色"), strict=True))

THINGS = {  # classifier, noun
    "plane": ("架", "飞机"),
    "boat": ("艘", "船"),
    "house": ("栋", "房屋"),
    "field": ("块", "地"),
    "circular_field": ("块", "圆形田地"),
    "tree": ("棵", "树"),
    "bridge": ("座", "桥"),
    "parasol": ("把", "遮阳伞"),
    "stand": ("座", "看台"),
    "car": ("辆", "汽车"),
    "tank": ("个", "储罐"),
    "warehouse": ("座", "仓库"),
    "solar_panel": ("块", "太阳能板"),
    "peak": ("座", "山峰"),
    "dune": ("座", "沙丘"),
}

PLACES = {  # one with its classifier, noun, in the place
    "airport": ("一座", "机场", "机场上"),
    "harbour": ("一座", "港口", "港口里"),
    "dense_residential": ("一片", "密集住宅区", "密集住宅区里"),
    "sparse_residential": ("一片", "稀疏住宅区", "稀疏住宅区里"),
    "farmland": ("一片", "农田", "农田里"),
    "circular_irrigation": ("一片", "圆形灌溉区", "圆形灌溉区里"),
    "forest": ("一片", "森林", "森林里"),
    "river": ("一条", "河", "河上"),
    "beach": ("一片", "海滩", "海滩上"),
    "baseball_field": ("一座", "棒球场", "棒球场旁"),
    "parking_lot": ("一个", "停车场", "停车场里"),
    "storage_tanks": ("一座", "油库", "油库里"),
    "industrial_area": ("一片", "工业区", "工业区里"),
    "solar_farm": ("一座", "太阳能发电场", "太阳能发电场里"),
    "roundabout": ("一个", "环岛", "环岛上"),
    "stadium": ("一座", "体育场", "体育场里"),
    "mountain": ("一条", "山脉", "山脉中"),
    "desert": ("一片", "沙漠", "沙漠里"),
    "lake": ("一个", "湖"),  # the last four lie only beside other places
    "road": ("一条", "公路"),
    "meadow": ("一片", "草地"),
    "railway": ("一条", "铁路"),
}

VARIANTS = {
    ("airport", "one_runway"): "一条长长的跑道横穿机场。",
    ("airport", "two_runways"): "两条跑道在机场内交叉。",
    ("harbour", "long_pier"): "一座长长的码头伸入水中。",
    ("harbour", "short_piers"): "岸边排列着几座短码头。",
    ("dense_residential", "straight_streets"): "房屋沿着笔直的街道紧密排列。",
    ("dense_residential", "curved_streets"): "房屋沿着弯曲的街道紧密排列。",
    ("sparse_residential", "trees"): "零散的房屋之间长着许多树。",
    ("sparse_residential", "lawns"): "零散的房屋之间是宽阔的草坪。",
    ("farmland", "strips"): "耕种的田地又长又窄。",
    ("farmland", "squares"): "耕种的田地呈正方形，大小相同。",
    ("circular_irrigation", "even"): "圆形灌溉田里的作物种植得很均匀。",
    ("circular_irrigation", "sectors"): "圆形灌溉田被分成几个扇形。",
    ("forest", "path"): "一条小路蜿蜒穿过茂密的森林。",
    ("forest", "clearing"): "茂密的森林中间有一片空地。",
    ("river", "straight"): "河水笔直地流过。",
    ("river", "winding"): "河流蜿蜒曲折，河湾宽阔。",
    ("beach", "waves"): "白色的海浪拍打着沙滩。",
    ("beach", "calm"): "沙滩外的海面很平静。",
    ("baseball_field", "grass"): "棒球场的内野铺着草皮。",
    ("baseball_field", "sand"): "棒球场的内野是裸露的沙地。",
    ("parking_lot", "lines"): "停车位用白线标出。",
    ("parking_lot", "trees"): "一排排停车位之间种着树。",
    ("storage_tanks", "equal"): "储罐大小相同。",
    ("storage_tanks", "sizes"): "储罐大小不一。",
    ("industrial_area", "parallel"): "长长的厂房彼此平行。",
    ("industrial_area", "containers"): "厂房之间堆放着集装箱。",
    ("solar_farm", "rows"): "太阳能板排成长长的平行行列。",
    ("solar_farm", "blocks"): "太阳能板分成几个独立的区块。",
    ("roundabout", "lawn"): "环岛中央有一块圆形草坪。",
    ("roundabout", "fountain"): "环岛中央有一座喷泉。",
    ("stadium", "track"): "红色的跑道环绕着体育场的球场。",
    ("stadium", "no_track"): "体育场的球场周围没有跑道。",
    ("mountain", "ridge"): "一道尖峭的山脊贯穿群山。",
    ("mountain", "valley"): "一条深谷切过群山。",
    ("desert", "ripples"): "风在沙漠的沙面上吹出了细细的波纹。",
    ("desert", "rocks"): "深色的岩石从沙漠的沙中露出。",
}


def captions(scene: Scene) -> list[str]:
    classifier, noun = THINGS[scene.thing]
    number = "许多" if scene.count == MANY else NUMBERS[scene.count] + classifier  # 三架; 许多 takes no classifier
    colored = f"{number}{COLORS[scene.color]}的{noun}"
    one, place, in_place = PLACES[scene.kind]
    beside = "".join(PLACES[scene.beside][:2])  # 一条河
    return [
        f"{in_place}有{colored}。",
        f"{one}{place}，旁边是{beside}。",
        f"这张航拍图显示了{one}有{number}{noun}的{place}。",
        VARIANTS[scene.kind, scene.variant],
        f"可以看到{colored}，附近有{beside}。",
    ]
