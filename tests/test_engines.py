"""Translation engines, with small models of the real architectures that know a few captions by heart."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rsmclip.data.translation.engines import ChatEngine, EngineError, Seq2SeqEngine, clean, folder_hash, open_engine
from tests.captions import CAPTIONS as ALL_CAPTIONS
from tests.translators import CHATML, make_chat_model, make_madlad, make_nllb

CAPTIONS = ALL_CAPTIONS[:4]
ENGLISH = [row["en"] for row in CAPTIONS]
MAKERS = {"chat": make_chat_model, "nllb": make_nllb, "madlad": make_madlad}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Models that know four captions in Portuguese and Korean."""
    root = tmp_path_factory.mktemp("translators")
    lessons = [(row["en"], code, row[code]) for row in CAPTIONS for code in ("pt", "ko")]
    return {name: make(root / name, lessons) for name, make in MAKERS.items()}


@pytest.mark.parametrize(("name", "kind"), [("chat", ChatEngine), ("nllb", Seq2SeqEngine), ("madlad", Seq2SeqEngine)])
def test_every_architecture_translates_into_the_language_asked_for(folders, name, kind):
    engine = open_engine("transformers", str(folders[name]))
    assert isinstance(engine, kind)
    for language in ("pt", "ko"):
        # Sentences of different length: padding must not disturb the shorter ones.
        assert engine.translate(ENGLISH, language) == [row[language] for row in CAPTIONS]
        assert engine.translate(ENGLISH[3:], language) == [CAPTIONS[3][language]]


def test_the_chat_model_is_asked_in_its_own_template(folders):
    prompt = open_engine("transformers", str(folders["chat"])).prompt("A road.", "de")
    assert prompt == (
        "<|im_start|>user\nTranslate the following text from English into German.\nEnglish: A road.\nGerman:"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_sampling_follows_its_seed_and_leaves_other_randomness_alone(folders, tmp_path):
    folder = make_chat_model(tmp_path / "untrained", [])
    engine = open_engine("transformers", str(folder))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (engine.translate(ENGLISH, "pt", seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other
    assert engine.translate(ENGLISH, "pt") == engine.translate(ENGLISH, "pt") != first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_revision_of_a_folder_changes_with_its_files(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["chat"], copy)
    assert folder_hash(copy) == folder_hash(folders["chat"])
    (copy / "generation_config.json").write_text("{}")
    assert folder_hash(copy) != folder_hash(folders["chat"])


def test_a_model_in_the_current_folder_is_called_after_it(folders, monkeypatch):
    monkeypatch.chdir(folders["chat"])
    assert open_engine("transformers", ".").name == folders["chat"].name


def test_quotation_marks_around_an_answer_are_no_part_of_it(tmp_path):
    lessons = [("A road.", "pt", '"Uma estrada."'), ("A field.", "pt", "« Um campo. »")]
    engine = open_engine("transformers", str(make_chat_model(tmp_path / "quoting", lessons)))
    assert engine.translate(["A road.", "A field."], "pt") == ["Uma estrada.", "Um campo."]


def test_a_model_that_is_not_there_or_no_translator_is_refused(folders, tmp_path):
    with pytest.raises(EngineError, match="cannot load the translation model"):
        open_engine("transformers", str(tmp_path / "nothing"))
    silent = make_chat_model(tmp_path / "silent", [], chat_template=None)
    with pytest.raises(EngineError, match="has no chat template"):
        open_engine("transformers", str(silent))
    other = tmp_path / "other"
    shutil.copytree(folders["madlad"], other)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_text((other / name).read_text().replace("<2pt>", "<2xx>"))
    with pytest.raises(EngineError, match="language tokens of neither NLLB .* nor MADLAD"):
        open_engine("transformers", str(other))


def test_vllm_is_an_extra(folders):
    engine = open_engine("vllm", str(folders["chat"]))
    with pytest.raises(EngineError, match=r"pip install -e '.\[vllm\]'"):
        engine.translate(ENGLISH, "pt")


def with_settings(folder: Path, copy: Path, **settings) -> str:
    """A copy of a model whose generation config has these settings."""
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(copy)


def test_an_answer_ends_at_every_token_that_the_model_calls_an_end(folders, tmp_path):
    vocabulary = open_engine("transformers", str(folders["chat"])).tokenizer.get_vocab()
    assert open_engine("transformers", str(folders["chat"])).end_tokens == [2, vocabulary["<|im_end|>"]]
    changed = with_settings(folders["chat"], tmp_path / "other", eos_token_id=[2, vocabulary["."]])
    (first, *_) = open_engine("transformers", changed).translate(ENGLISH, "pt")
    assert first == CAPTIONS[0]["pt"] and vocabulary["."] in open_engine("transformers", changed).end_tokens


def test_greedy_is_greedy_whatever_the_model_asks_for(folders, tmp_path):
    settings = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 9.0, "max_length": 3}
    changed = with_settings(folders["chat"], tmp_path / "other", **settings)
    assert open_engine("transformers", changed).translate(ENGLISH, "ko") == [row["ko"] for row in CAPTIONS]


def test_a_text_begins_as_in_training_whether_or_not_the_template_says_so(folders, tmp_path):
    shutil.copytree(folders["chat"], tmp_path / "other")
    engine = open_engine("transformers", str(tmp_path / "other"))
    assert not engine.prompt("A road.", "de").startswith("<s>")  # this tokenizer adds nothing
    text = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    text["post_processor"] = {
        "type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }  # fmt: skip
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(text))
    for template in (CHATML, "{{ bos_token }}" + CHATML):
        (tmp_path / "other" / "chat_template.jinja").write_text(template)
        prompt = open_engine("transformers", str(tmp_path / "other")).prompt("A road.", "de")
        assert prompt.startswith("<s><|im_start|>user") and prompt.count("<s>") == 1


def test_damaged_weights_are_told(folders, tmp_path):
    shutil.copytree(folders["chat"], tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(EngineError, match="cannot load the weights of"):
        open_engine("transformers", str(tmp_path / "other")).translate(ENGLISH, "pt")


@pytest.mark.parametrize(
    ("answer", "text"), [(' "A." ', "A."), ("„A.“", "A."), ('"A" e "B"', '"A" e "B"'), ("A “B”", "A “B”"), ("", "")]
)
def test_only_quotation_marks_around_the_whole_are_taken_off(answer, text):
    assert clean([answer]) == [text]
