"""Translation engines, with small models of the real architectures that memorized a few captions."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from rsmclip.core.errors import UserError
from rsmclip.data.translation.engines import TERMS, ChatEngine, Seq2SeqEngine, clean, folder_hash, open_engine
from tests.captions import CAPTIONS as ALL_CAPTIONS
from tests.translators import CHATML, make_chat_model, make_madlad, make_nllb

CAPTIONS = ALL_CAPTIONS[:4]
ENGLISH = [row["en"] for row in CAPTIONS]
MAKERS = {"chat": make_chat_model, "nllb": make_nllb, "madlad": make_madlad}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folders of models that memorized four captions in Portuguese and Korean."""
    root = tmp_path_factory.mktemp("translators")
    lessons = [(row["en"], code, row[code]) for row in CAPTIONS for code in ("pt", "ko")]
    return {name: make(root / name, lessons) for name, make in MAKERS.items()}


@pytest.mark.parametrize(("name", "kind"), [("chat", ChatEngine), ("nllb", Seq2SeqEngine), ("madlad", Seq2SeqEngine)])
def test_every_architecture_translates_into_the_language_asked_for(folders, name, kind):
    engine = open_engine("transformers", str(folders[name]))
    assert isinstance(engine, kind)
    for language in ("pt", "ko"):
        # The sentences have different lengths: padding must not change the shorter ones.
        assert engine.translate(ENGLISH, language) == [row[language] for row in CAPTIONS]
        assert engine.translate(ENGLISH[3:], language) == [CAPTIONS[3][language]]


def test_the_prompt_of_a_chat_model_follows_its_template(folders):
    prompt = open_engine("transformers", str(folders["chat"])).prompt("A road.", "de")
    assert prompt == (
        "<|im_start|>user\nTranslate the following text from English into German.\nEnglish: A road.\nGerman:"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_variety_of_portuguese_can_be_asked_for(folders):
    european = open_engine("transformers", str(folders["chat"]), portuguese="pt-PT")
    assert "into European Portuguese." in european.prompt("A road.", "pt")
    assert "into German." in european.prompt("A road.", "de")
    plain = open_engine("transformers", str(folders["chat"]))
    assert "into Portuguese." in plain.prompt("A road.", "pt") and plain.question != european.question
    with pytest.raises(UserError, match="pt-PT"):
        open_engine("transformers", str(folders["nllb"]), portuguese="pt-PT")


def test_the_prompt_has_the_terms_of_a_sentence(folders, monkeypatch):
    engine = open_engine("transformers", str(folders["chat"]))
    term = 'user\nTranslate "commercial area" by "Geschäftsviertel".\nTranslate the following text'
    assert term in engine.prompt("A Commercial area.", "de")
    assert 'Translate "' not in engine.prompt("A road.", "de") + engine.prompt("A commercial area.", "pt")
    before = engine.question
    monkeypatch.setitem(TERMS, "de", {"road": "Straße"})
    assert engine.question != before


def test_sampling_follows_its_seed_and_does_not_change_the_global_generator(tmp_path):
    engine = open_engine("transformers", str(make_chat_model(tmp_path / "untrained", [])))
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


def test_a_missing_model_and_a_model_that_is_no_translator_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match="nothing"):
        open_engine("transformers", str(tmp_path / "nothing"))
    silent = make_chat_model(tmp_path / "silent", [], chat_template=None)
    with pytest.raises(UserError, match="chat template"):
        open_engine("transformers", str(silent))
    other = Path(shutil.copytree(folders["madlad"], tmp_path / "other"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_text((other / name).read_text().replace("<2pt>", "<2xx>"))
    with pytest.raises(UserError, match="NLLB .* MADLAD"):
        open_engine("transformers", str(other))


def test_vllm_is_an_extra(folders):
    engine = open_engine("vllm", str(folders["chat"]))
    with pytest.raises(UserError, match=r"pip install -e '.\[vllm\]'"):
        engine.translate(ENGLISH, "pt")


def with_settings(folder: Path, copy: Path, **settings) -> str:
    """Copy a model and change settings of its generation config."""
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
    other = Path(shutil.copytree(folders["chat"], tmp_path / "other"))
    engine = open_engine("transformers", str(other))
    assert not engine.prompt("A road.", "de").startswith("<s>")  # this tokenizer adds no first token
    tokenizer = Tokenizer.from_file(str(other / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(other / "tokenizer.json"))
    for template in (CHATML, "{{ bos_token }}" + CHATML):
        (other / "chat_template.jinja").write_text(template)
        prompt = open_engine("transformers", str(other)).prompt("A road.", "de")
        assert prompt.startswith("<s><|im_start|>user") and prompt.count("<s>") == 1


def test_damaged_weights_are_an_error_of_one_line(folders, tmp_path):
    shutil.copytree(folders["chat"], tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(UserError, match="^[^\n]*weights[^\n]*/other[^\n]*$"):
        open_engine("transformers", str(tmp_path / "other")).translate(ENGLISH, "pt")


@pytest.mark.parametrize(
    ("answer", "text"), [(' "A." ', "A."), ("„A.“", "A."), ('"A" e "B"', '"A" e "B"'), ("A “B”", "A “B”"), ("", "")]
)
def test_only_quotation_marks_around_the_whole_answer_are_removed(answer, text):
    assert clean([answer]) == [text]
