"""Search a folder of images by a text, by an image, and by both.

make train                             # once: the model outputs/demo
python examples/search_folder.py
"""

from pathlib import Path

from demo_pictures import demo_pictures

from rsmclip import build_index, load_embedder, search

MODEL = "outputs/demo"  # or the Hub id of a model
FOLDER = Path(demo_pictures())  # or Path("your folder"), with any folders inside
INDEX = "outputs/pictures_index"

model = load_embedder(MODEL)
report = build_index(FOLDER, model, INDEX)  # a second run embeds new images only
print(f"{report.new} new images, {report.unchanged} unchanged, {len(report.left_out)} left out")

image = FOLDER / search(INDEX, "a stadium", top=1, model=model)[0].entry["path"]
queries = {
    "text": {"text": "um rio ao lado de uma floresta"},
    "image": {"image": image},
    "text and image": {"text": "a stadium", "image": image},
}
for name, query in queries.items():
    print(f"\n{name}: {', '.join(map(str, query.values()))}")
    for score, entry in search(INDEX, **query, top=5, model=model):
        print(f"  {score:.3f}  {entry['path']}")
