"""Start the Space on the Hub. This file is `app.py` there, beside `handler.py`, `settings.json` and `space/`.

`rsmclip hub push-space` writes the settings: the model and the gallery, each with its commit.
"""

import json
from pathlib import Path

import handler
from datasets import Image, load_dataset
from huggingface_hub import snapshot_download
from space.app import run_app

settings = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))
model, gallery = settings["model"], settings["gallery"]
folder = snapshot_download(model["id"], revision=model["revision"], allow_patterns=model["files"])
rows = load_dataset(gallery["id"], split=gallery["split"], revision=gallery["revision"])
name = f"{gallery['id']} ({gallery['split']})"
run_app(handler, Path(folder), model["id"], name, rows.cast_column("image", Image(decode=False)))
