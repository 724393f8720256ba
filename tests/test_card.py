"""The model folder and its card."""

import json

from huggingface_hub import ModelCard
from huggingface_hub.repocard import model_index_to_eval_results

from rsmclip.hub.card import make_card
from rsmclip.hub.folder import is_model_folder, save_model_folder

METRICS = {"images": 5, "texts": 25, "mean_recall": 31.25, "chance_mean_recall": 1.8, "zero_shot_accuracy": 70.0}
RESULTS = {
    "dataset": "demo",
    "split": "test",
    "images": 5,
    "train_images": 60,
    "classes": 18,
    "languages": ["en", "zh"],
    "base_model": "laion/some-clip",
    "metrics": {"en": METRICS, "zh": METRICS | {"mean_recall": 28.5}},
    "untrained": {},
    "seconds": 12.0,
    "pairs_per_second": 100.0,
    "device": "1 × CPU",
    "training": {"max_train_steps": 10, "batch_size": 6, "model": None, "self_distillation_weight": 1.0},
}


def test_card_metadata_is_valid_and_its_model_index_reads_back(tmp_path):
    make_card(RESULTS, "rsmclip-demo").save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.language == ["en", "zh"]
    assert card.data.base_model == "laion/some-clip"
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert card.data.library_name == "transformers" and card.data.license == "mit"
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "rsmclip-demo" and len(results) == 4
    recall = next(r for r in results if r.dataset_config == "zh" and r.metric_type == "mean_recall")
    assert recall.metric_value == 28.5 and recall.dataset_split == "test"
    assert "| zh | 28.5 | 70.0 |" in card.text and "{{" not in card.text


def test_card_shows_the_training_curve_where_there_is_one():
    assert "](training_curve.png)" in make_card(RESULTS, "rsmclip-demo", "training_curve.png").text
    assert "](" not in make_card(RESULTS, "rsmclip-demo").text


def test_model_folder_has_all_that_the_hub_needs(tiny_model, tiny_processor, tmp_path):
    assert not is_model_folder(tmp_path)
    save_model_folder(tiny_model, tiny_processor, tmp_path)
    assert is_model_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_rsmclip.RSMCLIPConfig",
        "AutoModel": "modeling_rsmclip.RSMCLIPModel",
        "AutoModelForZeroShotImageClassification": "modeling_rsmclip.RSMCLIPModel",
    }
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "modeling_rsmclip.py", "configuration_rsmclip.py", "processor_config.json"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names and not list(tmp_path.glob("*.bin"))
    for line in (tmp_path / "modeling_rsmclip.py").read_text().splitlines():
        if line.startswith(("import ", "from ")):
            assert line.split()[1].split(".")[0] in ("dataclasses", "torch", "transformers", ""), line
