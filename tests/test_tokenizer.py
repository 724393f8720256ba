"""The tokenizer that is trained on captions."""

import re

import pytest
from transformers import AutoTokenizer, XLMRobertaTokenizer

from rsmclip.core.errors import UserError
from rsmclip.training.tokenizer import train_tokenizer


def test_special_tokens_have_the_ids_of_xlm_roberta(tokenizer):
    assert isinstance(tokenizer, XLMRobertaTokenizer)
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    ids = tokenizer("An airport.")["input_ids"]
    assert ids[0] == 0 and ids[-1] == 2 and tokenizer.model_max_length == 77


def test_captions_of_every_language_survive(tokenizer, corpus):
    for captions in corpus["test"]["captions"][:10]:
        for texts in captions.values():
            for ids, text in zip(tokenizer(texts)["input_ids"], texts, strict=True):
                if 3 not in ids:  # a letter that the sixty training rows do not have
                    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    texts = [text for row in corpus["test"]["captions"] for texts in row.values() for text in texts]
    unknown = [3 in ids for ids in tokenizer(texts)["input_ids"]]
    assert sum(unknown) / len(unknown) < 0.02


def test_training_is_reproducible(tokenizer, corpus):
    captions = [text for row in corpus["train"]["captions"] for texts in row.values() for text in texts]
    again = train_tokenizer(reversed(captions), vocab_size=1000, max_length=77)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_many_rare_letters_have_a_reproducible_order(corpus):
    # Training keeps only some of these letters. The order of the others was arbitrary.
    captions = [text for row in corpus["train"]["captions"] for code in ("en", "pt", "ko") for text in row[code]]
    one, *others = (train_tokenizer(captions, vocab_size=1000, max_length=77).get_vocab() for _ in range(4))
    assert all(other == one for other in others)


def test_a_vocabulary_smaller_than_the_alphabet_is_refused():
    with pytest.raises(UserError, match="vocab_size is 20.* 22"):
        train_tokenizer(["abcdefghij klmnop"], vocab_size=20, max_length=77)
    assert len(train_tokenizer(["abcdefghij klmnop"], vocab_size=22, max_length=77)) == 22


def test_it_is_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Два серых моста через реку. 공항에 흰색 비행기 두 대가 있다."
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.model_max_length == 77


def test_captions_with_too_few_distinct_words_are_one_line(capsys):
    few = train_tokenizer(["a river", "a bridge"], vocab_size=1000, max_length=77)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(rf" 3 distinct words.* {len(few)} pieces.*vocab_size 1,000.*--tokenizer", line)
    with pytest.raises(UserError, match="blank"):
        train_tokenizer(["  ", "\n"], vocab_size=1000, max_length=77)


def test_a_full_vocabulary_says_nothing(corpus, capsys):
    captions = [text for row in corpus["train"]["captions"] for texts in row.values() for text in texts]
    assert len(train_tokenizer(captions, vocab_size=1000, max_length=77)) == 1000
    assert capsys.readouterr().out == ""
