"""The code in the card of a model and of an adapter runs in a fresh process; its output is that of the model."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor

from rsmclip import RSMCLIPModel, train
from rsmclip.hub.__main__ import main
from rsmclip.training.config import TrainingConfig
from tests.conftest import TINY_RUN

LORA = {"r": 2, "target_modules": r".*\.(q_proj|v_proj)"}


@pytest.fixture(scope="module")
def runs(corpus_folder, tmp_path_factory) -> Path:
    """A folder with two runs: `model`, and `adapter` to this model."""
    root = tmp_path_factory.mktemp("runs")
    data = {"dataset": str(corpus_folder), "benchmarks": ["demo"], "languages": ["en", "pt", "zh"]}
    fields = TINY_RUN | data | {"max_train_steps": 2, "num_workers": 0}
    for name, start in {"model": {}, "adapter": {"model": f"{root}/model", "lora": LORA}}.items():
        train.train(TrainingConfig(output_dir=str(root / name), **fields | start))
    return root


@pytest.mark.parametrize(("kind", "snippets"), [("model", 4), ("adapter", 3)])
def test_the_output_below_the_code_and_in_the_widget_is_that_of_the_model(runs, kind, snippets):
    main(["card", str(runs / kind), "--run_examples"])
    card = ModelCard.load(runs / kind / "README.md")
    assert card.data.library_name == {"model": "transformers", "adapter": "peft"}[kind]
    assert str(runs) not in str(card) and "rsmclip" not in "".join(re.findall(r"```python(.*?)```", card.text, re.S))
    pairs = re.findall(r"```python\n(.*?)\n```\n\n```\n(.*?)\n```", card.text, re.S)
    assert len(pairs) == snippets
    assert all('"USER/NAME"' in code and 'revision="REVISION"' in code for code, _ in pairs)
    assert any(ord(letter) > 0x4E00 for letter in pairs[2][1])  # Chinese
    widget = card.data.to_dict()["widget"]
    assert [example["group"] for example in widget] == ["en", "pt", "zh"]
    for example in widget:
        output = {one["label"]: one["score"] for one in example["output"]}
        assert output == pytest.approx(expected_scores(runs, kind, example), abs=1e-4)
    # Without the pipeline, the first snippet classifies the first example.
    scores = sorted((one["score"] for one in widget[0]["output"]), reverse=True)
    assert [float(line.split("  ")[0]) for line in pairs[0][1].splitlines()] == pytest.approx(scores, abs=1e-3)


def expected_scores(runs: Path, kind: str, example: dict) -> dict[str, float]:
    model = RSMCLIPModel.from_pretrained(runs / "model")
    if kind == "adapter":
        model = PeftModel.from_pretrained(model, runs / "adapter").merge_and_unload()
    processor = AutoProcessor.from_pretrained(runs / kind, trust_remote_code=True)
    labels = example["candidate_labels"].split(", ")
    texts = [example["parameters"]["hypothesis_template"].replace("{}", label) for label in labels]
    image = Image.open(runs / kind / example["src"])
    with torch.no_grad():
        logits = model.eval()(
            **processor(text=texts, images=image, padding=True, return_tensors="pt")
        ).logits_per_image
    return dict(zip(labels, logits.softmax(dim=-1)[0].tolist(), strict=True))


def test_code_that_fails_is_one_line_and_leaves_the_card(runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "model", tmp_path / "spoiled")
    before = (folder / "README.md").read_bytes()
    (folder / "modeling_rsmclip.py").write_text("raise RuntimeError('spoiled')")
    with pytest.raises(SystemExit, match="2"):
        main(["card", str(folder), "--run_examples"])
    assert re.fullmatch(r"error: .*\(AutoModel\): RuntimeError: spoiled\n", capsys.readouterr().err)
    assert (folder / "README.md").read_bytes() == before
