"""Start the Space on the Hub, where this file is named `app.py`, beside `handler.py`, `settings.json` and `space/`.

`rsmclip hub push-space` writes the settings: the model and the gallery, each with its commit.
"""

import json
from pathlib import Path

import handler
from datasets import Image, load_dataset
from huggingface_hub import snapshot_download
from space.app import is_demo_model, run_app

settings = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))
model, gallery = settings["model"], settings["gallery"]
folder = snapshot_download(model["id"], revision=model["revision"], allow_patterns=model["files"])
rows = load_dataset(gallery["id"], split=gallery["split"], revision=gallery["revision"])
rows = rows.cast_column("image", Image(decode=False))
endpoint, is_toy = handler.EndpointHandler(folder), is_demo_model(Path(folder))
run_app(handler, endpoint, model["id"], f"{gallery['id']} ({gallery['split']})", rows, is_toy)
