"""`rsmclip hub assemble` and `teacher` leave folders that load, and refuse what they cannot join."""

import pytest
from transformers import AutoModel, AutoProcessor

from rsmclip.hub.__main__ import main


def test_assembled_towers_are_a_model_folder(towers, tmp_path, corpus_folder, capsys):
    out = tmp_path / "model"
    options = ["--projection_dim", "8", "--trim_vocabulary", str(corpus_folder)]
    main(["assemble", str(out), "--image_tower", towers[0], "--text_tower", towers[1], *options])
    model = AutoModel.from_pretrained(out, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(out, trust_remote_code=True)
    inputs = processor(text=["a port", "ein Hafen"], padding=True, return_tensors="pt")
    assert model.get_text_features(**inputs).pooler_output.shape == (2, 8)
    assert len(processor.tokenizer) == model.config.text_config.vocab_size <= 1000
    assert str(out) in capsys.readouterr().out


def test_an_image_tower_that_is_a_text_tower_is_named(towers, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["assemble", str(tmp_path / "out"), "--image_tower", towers[1], "--text_tower", towers[1]])
    assert "image_tower" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_without_a_teacher_is_one_line_and_leaves_nothing(model_folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["teacher", str(model_folder), str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert str(model_folder) in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()
