"""Find images by a text, with onnxruntime, NumPy, Pillow and tokenizers: no torch, no transformers, no rsmclip.

make train                                              # once: the model outputs/demo
pip install -e '.[onnx]'
rsmclip hub export-onnx outputs/demo outputs/onnx       # once: graphs, tokenizer and settings of the images
python examples/onnx_search.py
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

FOLDER = Path("outputs/onnx")
IMAGES = sorted(Path("outputs/demo/examples").iterdir())  # or your images
QUERIES = ["a beach", "uma montanha", "круговое орошение"]

settings = json.loads((FOLDER / "processor_config.json").read_text())["image_processor"]
size, mean, std = settings["crop_size"]["height"], settings["image_mean"], settings["image_std"]
tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
tokenizer.enable_truncation(json.loads((FOLDER / "tokenizer_config.json").read_text())["model_max_length"])
image_tower, text_tower = (onnxruntime.InferenceSession(FOLDER / f"{name}_model.onnx") for name in ("vision", "text"))


def pixels(path: Path) -> np.ndarray:
    """Resize the short side, crop the center and normalize. Returns `(3, size, size)`."""
    image = Image.open(path).convert("RGB")
    width, height = (int(size * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    values = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
    return ((values - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


encodings = tokenizer.encode_batch(QUERIES)
ids, mask = (np.array([getattr(one, name) for one in encodings]) for name in ("ids", "attention_mask"))
(texts,) = text_tower.run(["text_embeds"], {"input_ids": ids, "attention_mask": mask})  # (texts, dim), unit rows
(images,) = image_tower.run(["image_embeds"], {"pixel_values": np.stack([pixels(path) for path in IMAGES])})
for query, cosines in zip(QUERIES, texts @ images.T, strict=True):
    best = np.argsort(-cosines)
    print(f"{query}: " + ", ".join(f"{IMAGES[place].name} {cosines[place]:.3f}" for place in best))
