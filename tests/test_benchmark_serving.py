"""The serving benchmark: the backends agree, and the figures are right."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from rsmclip.benchmarks import serving
from rsmclip.benchmarks.serving import Backend, compare, export_towers, summarize, table
from rsmclip.models.folder import save_model_folder


def test_backends_give_the_scores_of_the_same_model(tiny_model, tiny_processor, corpus_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "cached_demo", lambda: corpus_folder)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model")
    parameters = export_towers(str(tmp_path / "model"), tmp_path)
    assert parameters == sum(parameter.numel() for parameter in tiny_model.parameters())
    backends = {name: Backend(name, str(tmp_path / "model"), tmp_path, 1) for name in serving.BACKENDS}
    scores = {name: backend.scores() for name, backend in backends.items()}
    assert np.shape(scores["torch"]) == (32, 18) and np.sum(scores["torch"], axis=1) == pytest.approx(np.ones(32))
    quality = compare(scores)
    assert quality["torch"] == {"largest_difference": 0, "same_best_label_percent": 100}
    assert 0 < quality["onnx"]["largest_difference"] < 1e-5 < quality["onnx int8"]["largest_difference"] < 0.1

    counted = []
    embed = backends["onnx"].endpoint.embed_texts
    monkeypatch.setattr(backends["onnx"].endpoint, "embed_texts", lambda texts: counted.append(texts) or embed(texts))
    assert len(backends["onnx"].time(images=1, seen=True, calls=3)) == 3 and not counted
    assert len(backends["onnx"].time(images=1, seen=False, calls=3)) == 3 and len(counted) == 4
    stages = backends["torch"].stages()
    assert len(stages) == 3 and all(milliseconds > 0 for milliseconds in stages.values())


def test_latencies_are_percentiles_and_the_rate_is_of_all_calls():
    seconds = [0.010 * number for number in range(1, 101)]
    found = summarize(seconds, images=32)
    assert found == {"p50_ms": 505.0, "p95_ms": 950.5, "images_per_second": 63.4, "calls": 100}  # 3,200 in 50.5 s
    kinds = dict.fromkeys(serving.CALLS, found)
    quality = compare({"torch": [[0.9, 0.1]], "onnx": [[0.4, 0.6]]})
    assert quality["onnx"] == {"largest_difference": 0.5, "same_best_label_percent": 0}
    lines = table({"backends": {"torch": kinds, "onnx": kinds}, "quality": quality}).splitlines()
    assert len(lines) == 7 and lines[-1].split() == ["onnx", "32", "images", "505.0", "950.5", "63.4", "5.0e-01"]


def test_the_recorded_command_is_the_one_that_was_given(monkeypatch, tmp_path):
    zeros = dict.fromkeys(serving.CALLS, summarize([0.01], images=1))
    found = {"backends": {"torch": zeros}, "quality": {"torch": {"largest_difference": 0}}}
    monkeypatch.setattr(serving, "run", lambda _: found | {"torch_stages_ms_per_image": {}})
    given = "--full_size --threads 1 --rounds 2 --calls 16"
    monkeypatch.setattr(sys, "argv", ["serving", "outputs/demo", *given.split(), "--output", str(tmp_path / "a.json")])
    serving.main()
    command = json.loads((tmp_path / "a.json").read_text())["command"]
    assert command == f"python -m rsmclip.benchmarks.serving MODEL {given}"
