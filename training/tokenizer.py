"""A tokenizer for a random start: SentencePiece's Unigram model on the captions, with XLM-RoBERTa's special tokens.

For a multilingual start from published weights the tokenizer comes with them, and this file is not used.
"""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
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

    Raises:
        `ValueError`: There are fewer pieces than letters in the captions.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            # Chinese has no spaces: where captions repeat, whole phrases would become pieces and hide their words.
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
        ]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - 1, special_tokens=SPECIAL_TOKENS, unk_token="<unk>", show_progress=False
    )
    try:
        tokenizer.train_from_iterator(sorted(set(captions)), trainer)
    except Exception as error:  # all that the trainer ever raises
        raise ValueError(f"vocab_size {vocab_size} is too small for the captions' letters: {error}") from error
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"][len(SPECIAL_TOKENS) :]
    return XLMRobertaTokenizer(
        vocab=[*((token, 0.0) for token in SPECIAL_TOKENS), *reproducible(pieces), ("<mask>", 0.0)],
        model_max_length=max_length,
    )


def reproducible(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """
    The same pieces in an order and with scores that do not depend on the trainer's threads and hash tables: those give
    the same pieces every time, but scores that differ in the last digits, and an arbitrary order of the characters
    that it keeps below all others for coverage.
    """
    floor = min(score for piece, score in pieces if len(piece) > 1)
    scored = [
        (piece, round(floor, 6) - 1 if len(piece) == 1 and score < floor + 1e-6 else round(score, 6))
        for piece, score in pieces
    ]
    return sorted(scored, key=lambda entry: (-entry[1], entry[0]))
