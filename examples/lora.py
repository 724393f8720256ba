"""Train a LoRA adapter (Hu et al. 2022) instead of all weights, and load it with PEFT.

make train                             # once: the model outputs/demo
python examples/lora.py
"""

from io import BytesIO
from pathlib import Path

import torch
from demo_pictures import demo_pictures
from peft import PeftModel
from PIL import Image
from transformers import AutoModel, AutoProcessor

from rsmclip import build_corpus, train_model
from rsmclip.data.schema import load_corpus

MODEL, ADAPTER, CORPUS = "outputs/demo", "outputs/adapter", "outputs/pictures_corpus"
FOLDER = demo_pictures()  # or the name of your folder, with metadata.csv

build_corpus([f"imagefolder={FOLDER}"], CORPUS, split="80/10/10", overwrite=True)
train_model(
    "finetune",
    dataset=CORPUS,
    model=MODEL,
    languages=["en"],
    lora={"r": 8, "lora_alpha": 16, "target_modules": r".*\.(q_proj|v_proj|query|value)"},
    learning_rate=1e-3,  # adapters start at zero and need a higher rate than weights
    weight_decay=0.0,
    num_train_epochs=1,
    batch_size=16,
    mixed_precision="no",
    num_workers=0,
    output_dir=ADAPTER,
    overwrite_output_dir=True,
)
sizes = {name: next(Path(name).glob("*.safetensors")).stat().st_size for name in (MODEL, ADAPTER)}
print(", ".join(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()))

base = AutoModel.from_pretrained(MODEL, trust_remote_code=True, use_safetensors=True)
model = PeftModel.from_pretrained(base, ADAPTER).merge_and_unload().eval()
processor = AutoProcessor.from_pretrained(ADAPTER, trust_remote_code=True)
texts = ["an airport", "a beach", "a forest"]
image = Image.open(BytesIO(load_corpus(CORPUS)["test"][0]["image"]["bytes"]))
inputs = processor(text=texts, images=image, padding=True, return_tensors="pt")
with torch.no_grad():
    scores = model(**inputs).logits_per_image.softmax(dim=-1)
for score, text in zip(scores[0].tolist(), texts, strict=True):
    print(f"{score:.3f}  {text}")
