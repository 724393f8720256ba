"""Small translation models of the real architectures that memorize a few captions."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from rsmclip.data.translation.checks import LANGUAGE_NAMES
from rsmclip.data.translation.engines import NLLB_CODES, PROMPT

# The chat template of TowerInstruct
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Lesson = tuple[str, str, str]  # English, language, translation


def byte_level_tokenizer(texts: Iterable[str], special: Sequence[str]) -> Tokenizer:
    """Train byte-pair encoding of bytes, which knows every character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def learn(model: PreTrainedModel, loss: Callable[[], torch.Tensor]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if value.item() < 0.02:
            break
    model.eval()


def make_chat_model(folder: Path, lessons: Sequence[Lesson], chat_template: str | None = CHATML) -> Path:
    """Make a Llama that answers the prompts of [`~rsmclip.data.translation.engines.ChatEngine`]."""
    prompts = [PROMPT.format(language=LANGUAGE_NAMES[code], sentence=english) for english, code, _ in lessons]
    texts = [*prompts, *(text for _, _, text in lessons)]
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "chat_template": chat_template}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(texts, special), **names)
    torch.manual_seed(0)
    size = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **size, **tokens))
    if lessons:
        chats = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in prompts]
        ids, labels = [], []
        for chat, (_, _, text) in zip(chats, lessons, strict=True):
            asked, answered = tokenizer(chat).input_ids, tokenizer(f"{text}<|im_end|>").input_ids
            ids.append(torch.tensor(asked + answered))
            labels.append(torch.tensor([-100] * len(asked) + answered))
        ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=2)
        labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        learn(model, lambda: model(input_ids=ids, labels=labels).loss)
    return save(folder, model, tokenizer)


def make_nllb(folder: Path, lessons: Sequence[Lesson]) -> Path:
    """Make an NLLB: M2M100 with NLLB's tokenizer."""
    special = ["<s>", "<pad>", "</s>", "<unk>", *NLLB_CODES.values(), "<mask>"]
    texts = [text for english, _, translation in lessons for text in (english, translation)]
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()  # NllbTokenizer adds its own, with SentencePiece's "▁"
    pieces.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    learned = json.loads(pieces.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]])
    torch.manual_seed(0)
    size = {"layers": 1, "attention_heads": 2, "ffn_dim": 128, "layerdrop": 0.0}
    both = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in size.items()}
    dropout = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), d_model=64, **both, **dropout))
    learn(model, seq2seq_loss(model, tokenizer, lessons, lambda english, code: english))
    return save(folder, model, tokenizer)


def seq2seq_loss(model, tokenizer, lessons: Sequence[Lesson], prompt: Callable[[str, str], str]) -> Callable:
    is_nllb = isinstance(tokenizer, NllbTokenizer)
    if is_nllb:
        tokenizer.src_lang = NLLB_CODES["en"]
    inputs = tokenizer([prompt(text, code) for text, code, _ in lessons], padding=True, return_tensors="pt")
    labels = []
    for _, code, text in lessons:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        first = [tokenizer.convert_tokens_to_ids(NLLB_CODES[code])] if is_nllb else []
        labels.append(torch.tensor([*first, *ids, tokenizer.eos_token_id]))
    labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    return lambda: model(**{k: inputs[k] for k in ("input_ids", "attention_mask")}, labels=labels).loss


def make_madlad(folder: Path, lessons: Sequence[Lesson]) -> Path:
    """Make a MADLAD: T5 with a token for each language."""
    codes = [f"<2{code}>" for code in NLLB_CODES]
    special = ["<pad>", "</s>", "<unk>", *codes]
    texts = [text for english, _, translation in lessons for text in (english, translation)]
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_special_tokens": codes}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(texts, special), **names)
    torch.manual_seed(0)
    size = {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    config = T5Config(vocab_size=len(tokenizer), **size, decoder_start_token_id=0, tie_word_embeddings=False)
    model = T5ForConditionalGeneration(config)
    learn(model, seq2seq_loss(model, tokenizer, lessons, lambda english, code: f"<2{code}> {english}"))
    return save(folder, model, tokenizer)


def save(folder: Path, model: PreTrainedModel, tokenizer) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
