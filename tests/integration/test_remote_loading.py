"""A model folder in a process that has never heard of this repository: no package, an empty module cache."""

import json
import os
import subprocess
import sys

import torch
from PIL import Image

from rsmclip.models.folder import save_model_folder

SCRIPT = """
import json, sys
sys.modules["rsmclip"] = None  # importing the package is an error here
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

folder, image_file, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "rsmclip"
model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
image = Image.open(image_file)
with torch.no_grad():
    output = model(**processor(text=texts, images=image, padding=True, return_tensors="pt"))
classifier = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
scores = classifier(image, candidate_labels=["аэропорт", "лес"], hypothesis_template="Аэроснимок: {}.")
print(json.dumps({"logits": output.logits_per_image.tolist(), "module": type(model).__module__, "scores": scores}))
"""


def test_auto_model_and_pipeline_load_it(tiny_model, tiny_processor, corpus, tmp_path):
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model")
    image_file = tmp_path / "image.png"
    image_file.write_bytes(corpus["test"][0]["image"]["bytes"])
    texts = ["An airport.", "Два серых моста через реку.", "河上有两座灰色的桥。"]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model"), str(image_file), json.dumps(texts)],
        capture_output=True, text=True, cwd=tmp_path, env=environment | {"HF_HUB_OFFLINE": "1"}, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["module"].startswith("transformers_modules.")
    inputs = tiny_processor(text=texts, images=Image.open(image_file), padding=True, return_tensors="pt")
    expected = tiny_model(**inputs).logits_per_image
    torch.testing.assert_close(torch.tensor(result["logits"]), expected, atol=1e-5, rtol=1e-5)
    assert {entry["label"] for entry in result["scores"]} == {"аэропорт", "лес"}
    assert abs(sum(entry["score"] for entry in result["scores"]) - 1) < 1e-5
