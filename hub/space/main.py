"""Where the Space on the Hub starts: it lies there as `app.py`, beside `handler.py`, `settings.json` and this folder.

`python -m rsmclip.hub push-space` writes the settings: which commits of which model and gallery.
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
