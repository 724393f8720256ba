"""The model folder in Auto classes, pipelines, sentence-transformers and PEFT, without this repository."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file

from rsmclip import RSMCLIPModel
from rsmclip.models.folder import save_model_folder

SCRIPT = """
import json, sys
sys.modules["rsmclip"] = None  # importing the package is an error here
import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForZeroShotImageClassification, AutoProcessor, pipeline
from sentence_transformers import SentenceTransformer

folder, image_file, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
image = Image.open(image_file)
assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "rsmclip"
options = {"trust_remote_code": True, "output_loading_info": True}
model, info = AutoModelForZeroShotImageClassification.from_pretrained(folder, **options)
assert not info["missing_keys"] and not info["unexpected_keys"], info
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    output = model(**processor(text=texts, images=image, padding=True, return_tensors="pt"))
classifier = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
scores = classifier(image, candidate_labels=texts[:2], hypothesis_template="{}")
extracted = pipeline("image-feature-extraction", model=folder, trust_remote_code=True)(image)
sentences = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
print(json.dumps({
    "module": type(model).__module__,
    "scores": {found["label"]: found["score"] for found in scores},
    "text": output.text_embeds.tolist(),
    "image": output.image_embeds.tolist(),
    "pipeline": extracted,
    "sentence_text": sentences.encode(texts, normalize_embeddings=True).tolist(),
    "sentence_image": sentences.encode([image], normalize_embeddings=True).tolist(),
    "processors": [
        type(processor.image_processor).__name__,
        type(AutoProcessor.from_pretrained(folder, trust_remote_code=False).image_processor).__name__,
    ],
}))
"""


@pytest.fixture
def model_folder(tiny_model, tiny_processor, tmp_path):
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model", keep_self_distillation_head=False)
    return tmp_path / "model"


def test_pipelines_and_sentence_transformers_give_the_models_vectors(
    model_folder, tiny_model, tiny_processor, corpus, tmp_path
):
    (tmp_path / "image.png").write_bytes(corpus["test"][0]["image"]["bytes"])
    texts = ["An airport.", "Два серых моста через реку.", ""]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-c", SCRIPT, str(model_folder), str(tmp_path / "image.png"), json.dumps(texts)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr
    found = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))
    image = Image.open(tmp_path / "image.png")
    with torch.no_grad():
        expected = tiny_model(**tiny_processor(text=texts, images=image, padding=True, return_tensors="pt"))
    for name in ("text", "sentence_text"):
        np.testing.assert_allclose(found[name], expected.text_embeds, atol=1e-5)
    for name in ("image", "pipeline", "sentence_image"):
        np.testing.assert_allclose(found[name], expected.image_embeds, atol=1e-5)
    assert found["module"].startswith("transformers_modules.")
    scores = [found["scores"][text] for text in texts[:2]]
    np.testing.assert_allclose(scores, expected.logits_per_image[0, :2].softmax(-1), atol=1e-5)
    # Without trust in remote code, the folder names a class of the library.
    assert found["processors"][0] == "RSMCLIPImageProcessor" and found["processors"][1].startswith("CLIPImage")


def test_lora_trains_both_towers_and_its_folder_holds_the_adapter_alone(model_folder, tmp_path):
    torch.manual_seed(0)
    inputs = {"input_ids": torch.randint(4, 1000, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.long)}
    inputs["pixel_values"] = torch.randn(4, 3, 32, 32)
    base = RSMCLIPModel.from_pretrained(model_folder)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "query", "value"]))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("vision_model" in name for name in trained) and any("text_model" in name for name in trained)
    assert all("lora_" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    losses = []
    for _ in range(5):
        loss = model(**inputs, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    model.save_pretrained(tmp_path / "adapter")
    written = {path.name for path in tmp_path.glob("adapter/*")}
    assert written == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert all("lora_" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    loaded = PeftModel.from_pretrained(RSMCLIPModel.from_pretrained(model_folder), tmp_path / "adapter").eval()
    model.eval()
    with torch.no_grad():
        expected = model(**inputs).logits_per_image
        assert torch.equal(loaded(**inputs).logits_per_image, expected)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits_per_image, expected, atol=1e-4, rtol=1e-5)
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.split(".")[-2] in ("q_proj", "v_proj", "query", "value") for name in changed)
