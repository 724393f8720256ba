"""Start the Space on the Hub. There, this file is `app.py`, beside `handler.py`, `index.py` and the folder `space`.

`rsmclip hub push-space` writes `settings.json`: the model and the gallery, each with its commit.
"""

import json
from pathlib import Path

import handler
import index
from datasets import Image, load_dataset
from huggingface_hub import snapshot_download
from space.app import is_demo_model, run_app
from space.rows import RowsGallery

settings = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))
model, gallery = settings["model"], settings["gallery"]
folder = snapshot_download(model["id"], revision=model["revision"], allow_patterns=model["files"])
rows = load_dataset(gallery["id"], split=gallery["split"], revision=gallery["revision"])
rows = rows.cast_column("image", Image(decode=False))
endpoint, is_toy = handler.EndpointHandler(folder), is_demo_model(Path(folder))
images = RowsGallery(f"{gallery['id']} ({gallery['split']})", rows, handler, endpoint, index.nearest)
run_app(handler, endpoint, model["id"], images, is_toy)
