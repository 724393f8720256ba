"""A tokenizer for a random start: SentencePiece's Unigram model on the captions, with XLM-RoBERTa's special tokens.

For a multilingual start from published weights the tokenizer comes with them, and this file is not used.
"""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import XLMRobertaTokenizer

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # ids 0 to 3, as in XLM-RoBERTa; <mask> comes last


def train_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> XLMRobertaTokenizer:
    """
    Trains a Unigram tokenizer (Kudo 2018).

    Args:
        captions (`Iterable[str]`):
            Sentences to train on; equal ones count once.
        vocab_size (`int`):
            Number of pieces, special tokens included; fewer if the captions do not give so many.
        max_length (`int`):
            Longest sequence of the text tower, in tokens.

    Returns:
        `XLMRobertaTokenizer`
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - 1, special_tokens=SPECIAL_TOKENS, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sorted(set(captions)), trainer)
    # The trainer's threads add floats in any order: equal pieces every time, but scores that differ in the last digits.
    pieces = [(piece, round(score, 6)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    pieces = pieces[: len(SPECIAL_TOKENS)] + sorted(
        pieces[len(SPECIAL_TOKENS) :], key=lambda entry: (-entry[1], entry[0])
    )
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=max_length)
