"""A tokenizer for a random start: SentencePiece's Unigram model, trained on the captions.

A start from published weights uses the tokenizer of those weights instead.
"""

import json
from collections.abc import Iterable

from accelerate import PartialState
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import XLMRobertaTokenizer

from rsmclip.core.errors import UserError

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # ids 0 to 3, as in XLM-RoBERTa; <mask> is last


def train_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> XLMRobertaTokenizer:
    """
    Train a Unigram tokenizer (Kudo 2018) with the special tokens of XLM-RoBERTa.

    Print a line if the captions have too few words for `vocab_size` pieces.

    Args:
        captions (`Iterable[str]`): Sentences. Equal sentences count once.
        vocab_size (`int`): Largest number of pieces, including special tokens.
        max_length (`int`): Longest sequence of the text tower in tokens.

    Raises:
        [`UserError`]: The captions have no words, or `vocab_size` is too small for the special tokens and a piece for
            each letter of the captions.
    """
    sentences = sorted(set(captions))
    if not (words := {word for sentence in sentences for word in sentence.split()}):
        raise UserError("the captions are blank: no tokenizer can be trained on them; check the corpus")
    letters = {"▁", *(letter for letter in "".join(sentences) if not letter.isspace())}
    if (needed := len(letters) + len(SPECIAL_TOKENS) + 1) > vocab_size:
        raise UserError(
            f"vocab_size is {vocab_size}, but the captions have {len(letters)} letters: give at least {needed}"
        )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            # Chinese has no spaces. Without this split, frequent phrases would become pieces and hide their words.
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
        ]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - 1, special_tokens=SPECIAL_TOKENS, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"][len(SPECIAL_TOKENS) :]
    vocab = [*((token, 0.0) for token in SPECIAL_TOKENS), *reproducible(pieces), ("<mask>", 0.0)]
    if len(vocab) < vocab_size:
        PartialState().print(
            f"the captions have only {len(words):,} distinct words: the tokenizer gets {len(vocab):,} pieces, not "
            f"vocab_size {vocab_size:,}. For texts with other words, give a published --tokenizer or more captions"
        )
    return XLMRobertaTokenizer(vocab=vocab, model_max_length=max_length)


def reproducible(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    # Training again gives equal pieces, but the last digits of their scores differ. Letters that the training has not
    # kept are added last, in an arbitrary order: the first gets the lowest score, each of the next 0.0001 more. So
    # scores are rounded, these letters get one score, and pieces are sorted.
    lowest = min(score for _, score in pieces)
    added = lowest + 0.0001 * sum(len(piece) == 1 for piece, _ in pieces)
    scored = [
        (piece, round(lowest, 6) - 1 if len(piece) == 1 and score <= added + 1e-6 else round(score, 6))
        for piece, score in pieces
    ]
    return sorted(scored, key=lambda entry: (-entry[1], entry[0]))
