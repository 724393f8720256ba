"""ONNX graphs compared with torch at other sizes than they were exported at, and their int8 form."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor

import rsmclip
from rsmclip.data.schema import load_corpus
from rsmclip.hub import export_onnx
from rsmclip.hub.__main__ import main
from rsmclip.models.folder import save_model_folder


@pytest.fixture
def model_folder(tiny_model, tiny_processor, tmp_path):
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model")
    return tmp_path / "model"


def test_graphs_give_torchs_outputs_for_any_batch_and_length(
    model_folder, tiny_model, corpus_folder, tmp_path, capsys
):
    out = tmp_path / "onnx"
    main(["export-onnx", str(model_folder), str(out), "--int8", "--dataset", str(corpus_folder), "--split", "test"])
    printed = capsys.readouterr().out
    names = {f"{name}{suffix}.onnx" for name in ("vision_model", "text_model", "model") for suffix in ("", "_int8")}
    assert names <= {path.name for path in out.iterdir()}
    assert "model.onnx: logits_per_image" in printed
    assert [line.split(":")[0] for line in printed.splitlines()[-3:]] == ["torch", "onnx", "onnx int8"]

    processor = AutoProcessor.from_pretrained(out, trust_remote_code=True)
    pixels = torch.randn(7, 3, 32, 32)
    texts = processor(text=["a", "a grey bridge over a wide river", "河"], padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(out / "model.onnx")
    found = session.run(["logits_per_image"], {"pixel_values": pixels.numpy()} | dict(texts))[0]
    with torch.no_grad():
        expected = tiny_model(pixel_values=pixels, **{name: torch.from_numpy(ids) for name, ids in texts.items()})
    np.testing.assert_allclose(found, expected.logits_per_image.numpy(), atol=1e-4)
    check_the_code_of_the_page(tmp_path, out, corpus_folder, tiny_model)
    longest = {"input_ids": np.full((1, 78), 7), "attention_mask": np.ones((1, 78), dtype=np.int64)}
    assert np.isfinite(onnxruntime.InferenceSession(out / "text_model.onnx").run(None, longest)[0]).all()
    quantized = onnxruntime.InferenceSession(out / "vision_model_int8.onnx").run(
        None, {"pixel_values": pixels.numpy()}
    )
    cosine = (quantized[0] * expected.image_embeds.numpy()).sum(-1)
    assert 0.9 < cosine.min() < 1 - 1e-6  # close, but the graph is quantized
    assert json.loads((out / "config.json").read_text())["model_type"] == "rsmclip"


def check_the_code_of_the_page(place, out, corpus_folder, model):
    page = (Path(rsmclip.__file__).parent / "docs" / "model.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page[page.index("## ONNX") :], re.S)
    (place / "image.jpg").write_bytes(load_corpus(str(corpus_folder))["test"][0]["image"]["bytes"])
    code = code.replace("OUT", str(out)).replace("image.jpg", str(place / "image.jpg"))
    (place / "page.py").write_text(code, encoding="utf-8")
    names = runpy.run_path(str(place / "page.py"))
    np.testing.assert_allclose(names["logits"], names["cosines"] * float(model.logit_scale.detach().exp()), atol=1e-4)
    inputs = {name: torch.from_numpy(array) for name, array in {**names["images"], **names["texts"]}.items()}
    with torch.no_grad():
        np.testing.assert_allclose(names["logits"], model(**inputs).logits_per_image, atol=1e-4)


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_a_graph_that_differs_is_not_kept(model_folder, tmp_path, monkeypatch, capsys, difference):
    monkeypatch.setattr(export_onnx, "compare", lambda encoder, path: dict.fromkeys(encoder.outputs, difference))
    with pytest.raises(SystemExit):
        main(["export-onnx", str(model_folder), str(tmp_path / "onnx")])
    assert f"{difference:.1e}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_lacks_weights_is_no_graph_of_random_ones(model_folder, tmp_path, capsys):
    weights = load_file(model_folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit):
        main(["export-onnx", str(model_folder), str(tmp_path / "onnx")])
    assert "visual_projection.weight" in capsys.readouterr().err and not (tmp_path / "onnx").exists()


def test_other_models_and_models_without_a_tokenizer_are_refused(tiny_model, tiny_processor, tmp_path, capsys):
    save_model_folder(tiny_model, tiny_processor.image_processor, tmp_path / "images")
    for arguments, message in (
        ([str(tmp_path / "images"), "--int8"], "tokenizer"),
        ([str(tmp_path)], "config.json"),
    ):
        with pytest.raises(SystemExit):
            main(["export-onnx", arguments[0], str(tmp_path / "onnx"), *arguments[1:]])
        assert message in capsys.readouterr().err
