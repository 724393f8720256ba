"""Translation engines: models of `transformers` (chat models and sequence-to-sequence models) and vLLM, behind one
class. The default model is TowerInstruct (Alves et al. 2024), which knows exactly the ten languages."""

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from accelerate import PartialState
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BatchEncoding,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rsmclip.data.sources import SourceError
from rsmclip.data.translation.checks import LANGUAGE_NAMES

PROMPT = "Translate the following text from English into {language}.\nEnglish: {sentence}\n{language}:"
NLLB_CODES = {
    "en": "eng_Latn", "pt": "por_Latn", "es": "spa_Latn", "fr": "fra_Latn", "de": "deu_Latn", "nl": "nld_Latn",
    "it": "ita_Latn", "zh": "zho_Hans", "ko": "kor_Hang", "ru": "rus_Cyrl",
}  # fmt: skip
QUOTATION_MARKS = ('""', "“”", "«»", "„“", "「」")
SAMPLING = {"temperature": 0.7, "top_p": 0.9}  # of the second attempt
EXTRA_TOKENS, TOKENS_PER_TOKEN = (
    32,
    4,
)  # room for a translation: Hangul takes up to four tokens where English takes one


class EngineError(SourceError):
    """A translation model cannot be loaded, or is of a kind that no engine knows."""


class Engine:
    """
    A translation model.

    Args:
        model (`str`): Folder or Hub id.
        revision (`str`): Commit on the Hub; of a folder, a hash of its files.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
    """

    def __init__(self, model: str, revision: str, tokenizer: PreTrainedTokenizerBase):
        self.model, self.revision, self.tokenizer = model, revision, tokenizer

    @property
    def name(self) -> str:
        """What a record calls the model: its Hub id, or the name of its folder without the way to it."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    @property
    def hub_revision(self) -> str | None:
        """The revision to load from the Hub; a folder has none."""
        return None if Path(self.model).is_dir() else self.revision

    def prompt(self, sentence: str, language: str) -> str:
        """What the model reads."""
        raise NotImplementedError

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        """Translations from English, greedy without a seed and sampled with one."""
        raise NotImplementedError

    @cached_property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer: that of the tokenizer, those of the model, and ChatML's end of a turn."""
        ends = [self.tokenizer.eos_token_id, self.tokenizer.get_vocab().get("<|im_end|>")]
        try:
            of_model = GenerationConfig.from_pretrained(self.model, revision=self.hub_revision).eos_token_id
        except OSError:  # a model without such a file
            of_model = None
        ends += of_model if isinstance(of_model, list) else [of_model]
        return sorted({token for token in ends if token is not None})

    def room(self, sentences: Sequence[str]) -> int:
        """The most tokens a translation of any of the sentences may have."""
        return EXTRA_TOKENS + TOKENS_PER_TOKEN * max(len(ids) for ids in self.tokenizer(list(sentences)).input_ids)


class TransformersEngine(Engine):
    """A model of `transformers`: in bfloat16 on a GPU, in float32 on a CPU."""

    auto_model: type

    @cached_property
    def network(self) -> PreTrainedModel:
        """The model, loaded when the first sentence is to be translated."""
        device = PartialState().device
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        try:
            network = self.auto_model.from_pretrained(self.model, revision=self.hub_revision, dtype=dtype)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise EngineError(f"cannot load the weights of {self.model}: {str(error).splitlines()[0]}") from error
        # Not its own settings, such as a penalty for repetition: greedy is greedy, in each engine.
        tokens = ("bos_token_id", "decoder_start_token_id")
        own = {name: getattr(network.generation_config, name) for name in tokens}
        network.generation_config = GenerationConfig(**own)
        return network.to(device).eval()

    def generate(self, inputs: BatchEncoding, seed: int | None, **options) -> torch.Tensor:
        """Token ids `(batch, length)`, greedy without a seed and sampled with one."""
        device = self.network.device
        sampling = {"do_sample": False} if seed is None else {"do_sample": True, "top_k": 0, **SAMPLING}
        with torch.inference_mode(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed or 0)  # generate takes no generator of its own
            return self.network.generate(
                input_ids=inputs.input_ids.to(device),
                attention_mask=inputs.attention_mask.to(device),
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.end_tokens,
                **sampling,
                **options,
            )


class ChatEngine(TransformersEngine):
    """A causal chat model, asked in the words of its tokenizer's chat template."""

    auto_model = AutoModelForCausalLM

    def __init__(self, model: str, revision: str, tokenizer: PreTrainedTokenizerBase):
        super().__init__(model, revision, tokenizer)
        if tokenizer.chat_template is None:
            raise EngineError(f"the tokenizer of {model} has no chat template: take a model that follows instructions")
        tokenizer.padding_side = "left"  # generation continues the last token, which must not be padding
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        begins = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        self.beginning = tokenizer.bos_token if begins else ""

    def prompt(self, sentence: str, language: str) -> str:
        """The instruction as one turn of a chat, and the beginning of the answer."""
        turn = {"role": "user", "content": PROMPT.format(language=LANGUAGE_NAMES[language], sentence=sentence)}
        chat = self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        # TowerInstruct's template does not write the token with which every text began in training.
        return chat if chat.startswith(self.beginning) else self.beginning + chat

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        """Translations from English, greedy without a seed and sampled with one."""
        prompts = [self.prompt(sentence, language) for sentence in sentences]
        # Special tokens are in the prompts already.
        inputs = self.tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        tokens = self.generate(inputs, seed, max_new_tokens=self.room(sentences))
        return clean(self.tokenizer.batch_decode(tokens[:, inputs.input_ids.shape[1] :], skip_special_tokens=True))


class Seq2SeqEngine(TransformersEngine):
    """NLLB, told the language by the first token of the answer, or MADLAD, told by the first token of the question."""

    auto_model = AutoModelForSeq2SeqLM

    def __init__(self, model: str, revision: str, tokenizer: PreTrainedTokenizerBase):
        super().__init__(model, revision, tokenizer)
        vocabulary = tokenizer.get_vocab()
        self.is_nllb = all(code in vocabulary for code in NLLB_CODES.values())
        if self.is_nllb:
            tokenizer.src_lang = NLLB_CODES["en"]
        elif not all(f"<2{language}>" in vocabulary for language in NLLB_CODES):
            raise EngineError(f"{model} has the language tokens of neither NLLB (por_Latn) nor MADLAD (<2pt>)")

    def prompt(self, sentence: str, language: str) -> str:
        """The sentence, for MADLAD after the token of the language."""
        return sentence if self.is_nllb else f"<2{language}> {sentence}"

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        """Translations from English, greedy without a seed and sampled with one."""
        options = {"max_new_tokens": self.room(sentences)}
        if self.is_nllb:
            options["forced_bos_token_id"] = self.tokenizer.convert_tokens_to_ids(NLLB_CODES[language])
        prompts = [self.prompt(sentence, language) for sentence in sentences]
        inputs = self.tokenizer(prompts, padding=True, return_tensors="pt")
        return clean(self.tokenizer.batch_decode(self.generate(inputs, seed, **options), skip_special_tokens=True))


class VLLMEngine(ChatEngine):
    """A chat model in vLLM, for throughput. It spreads a model over all GPUs by itself, so it runs in one process."""

    @cached_property
    def network(self) -> "vllm.LLM":  # noqa: F821
        """The model, loaded when the first sentence is to be translated."""
        if PartialState().num_processes > 1:
            raise EngineError("vLLM takes all GPUs by itself: start it in one process, without accelerate launch")
        try:
            import vllm
        except ImportError as error:
            raise EngineError("the engine vllm needs vLLM: pip install -e '.[vllm]'") from error
        gpus = 2 ** int(math.log2(max(1, torch.cuda.device_count())))  # a number of heads is seldom divided by 3 or 5
        return vllm.LLM(self.model, revision=self.hub_revision, dtype="bfloat16", tensor_parallel_size=gpus, seed=0)

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        """Translations from English, greedy without a seed and sampled with one."""
        network = self.network  # tells if vLLM is not there
        import vllm

        sampling = {"temperature": 0.0} if seed is None else {"seed": seed, **SAMPLING}
        limits = {"max_tokens": self.room(sentences), "stop_token_ids": self.end_tokens}
        prompts = [self.prompt(sentence, language) for sentence in sentences]
        inputs = [{"prompt_token_ids": ids} for ids in self.tokenizer(prompts, add_special_tokens=False).input_ids]
        answers = network.generate(inputs, vllm.SamplingParams(**sampling, **limits), use_tqdm=False)
        return clean([answer.outputs[0].text for answer in answers])


def open_engine(kind: str, model: str, revision: str | None = None) -> Engine:
    """
    The engine for a model. Its weights are loaded with the first sentence.

    Args:
        kind (`str`): `transformers` or `vllm`.
        model (`str`): Folder or Hub id.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Raises:
        [`EngineError`]: The model cannot be read, or is no translation model that an engine knows.
    """
    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        commit = folder_hash(Path(model)) if Path(model).is_dir() else hub_commit(model, revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"cannot load the translation model {model}: {reason}") from error
    return engine_type(kind, config)(model, commit, tokenizer)


def engine_type(kind: str, config: PreTrainedConfig) -> type:
    """The class for a kind of engine and a model's architecture."""
    if kind == "vllm":
        return VLLMEngine
    return Seq2SeqEngine if config.is_encoder_decoder else ChatEngine


def hub_commit(model: str, revision: str | None) -> str:
    """The commit of a model on the Hub; without a network, of what is in the cache."""
    return Path(hf_hub_download(model, "config.json", revision=revision)).parent.name


def folder_hash(folder: Path) -> str:
    """A hash of the files of a model, which stands for its revision."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:40]


def clean(answers: Sequence[str]) -> list[str]:
    """Answers without white space and quotation marks around them."""
    stripped = (answer.strip() for answer in answers)
    return [text[1:-1].strip() if is_quoted(text) else text for text in stripped]


def is_quoted(text: str) -> bool:
    """Whether a text stands in quotation marks as a whole."""
    return any(text[:1] + text[-1:] == marks and not set(marks) & set(text[1:-1]) for marks in QUOTATION_MARKS)
