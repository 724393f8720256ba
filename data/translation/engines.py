"""Translation engines: chat models and sequence-to-sequence models of `transformers`, and chat models in vLLM.

The default model is TowerInstruct (Alves et al. 2024), which was trained on exactly the ten languages.
"""

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
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rsmclip.core.errors import UserError, extra, user_errors
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.translation.checks import LANGUAGE_NAMES
from rsmclip.data.translation.wording import PORTUGUESE

PROMPT = "Translate the following text from English into {language}.\nEnglish: {sentence}\n{language}:"
# Terms of the corpora that models translate by words of another meaning: Gewerbegebiet is a trading estate, and a
# pista de atletismo is the track without its field.
TERMS = {
    "pt": {"ground track field": "campo com pista de atletismo"},
    "es": {"ground track field": "campo deportivo con pista de atletismo"},
    "de": {"commercial area": "Geschäftsviertel"},
    "nl": {"ground track field": "sportveld met atletiekbaan"},
    "it": {"ground track field": "campo sportivo con pista di atletica"},
}
CODES = "eng_Latn por_Latn spa_Latn fra_Latn deu_Latn nld_Latn ita_Latn zho_Hans kor_Hang rus_Cyrl"
NLLB_CODES = dict(zip(LANGUAGES, CODES.split(), strict=True))
QUOTATION_MARKS = ('""', "“”", "«»", "„“", "「」")
SAMPLING = {"temperature": 0.7, "top_p": 0.9}  # in the second attempt
# Length of the longest translation: Hangul needs up to four tokens for one token of English.
EXTRA_TOKENS, TOKENS_PER_TOKEN = 32, 4


class Engine:
    """
    A translation model of `transformers`, in bfloat16 on a GPU and in float32 on a CPU.

    Args:
        model (`str`): Folder or Hub id.
        revision (`str`): Commit on the Hub; for a folder, a hash of its files.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of the model.
    """

    auto_model: type

    def __init__(self, model: str, revision: str, tokenizer: PreTrainedTokenizerBase):
        self.model, self.revision, self.tokenizer = model, revision, tokenizer
        is_folder = Path(model).is_dir()
        self.name = Path(model).resolve().name if is_folder else model  # records do not show local paths
        self.hub_revision = None if is_folder else revision

    def prompt(self, sentence: str, language: str) -> str:
        """Return the text that the model reads for a sentence."""
        raise NotImplementedError

    @property
    def question(self) -> str:
        """All that prompts depend on, beside sentence and language. Journals have its hash."""
        return self.prompt("{sentence}", "pt")

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        """Translate English sentences into a language, by sampling if there is a seed and greedily otherwise."""
        raise NotImplementedError

    @cached_property
    def network(self) -> PreTrainedModel:
        """Model, loaded at the first use."""
        device = PartialState().device
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        errors = OSError, ValueError, RuntimeError, SafetensorError
        with user_errors(*errors, prefix=f"cannot load the weights of {self.model}"):
            network = self.auto_model.from_pretrained(self.model, revision=self.hub_revision, dtype=dtype)
        # Drop the model's own generation settings, such as a repetition penalty. They would change greedy decoding.
        tokens = ("bos_token_id", "decoder_start_token_id")
        own = {name: getattr(network.generation_config, name) for name in tokens}
        network.generation_config = GenerationConfig(**own)
        return network.to(device).eval()

    @cached_property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer: those of tokenizer and model, and the end of a turn in ChatML."""
        ends = [self.tokenizer.eos_token_id, self.tokenizer.get_vocab().get("<|im_end|>")]
        try:
            of_model = GenerationConfig.from_pretrained(self.model, revision=self.hub_revision).eos_token_id
        except OSError:  # the model has no generation_config.json
            of_model = None
        ends += of_model if isinstance(of_model, list) else [of_model]
        return sorted({token for token in ends if token is not None})

    def max_new_tokens(self, sentences: Sequence[str]) -> int:
        return EXTRA_TOKENS + TOKENS_PER_TOKEN * max(len(ids) for ids in self.tokenizer(list(sentences)).input_ids)

    def generate(self, inputs: BatchEncoding, seed: int | None, **options) -> torch.Tensor:
        device = self.network.device
        sampling = {"do_sample": False} if seed is None else {"do_sample": True, "top_k": 0, **SAMPLING}
        with torch.inference_mode(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed or 0)  # `generate` accepts no generator
            return self.network.generate(
                input_ids=inputs.input_ids.to(device),
                attention_mask=inputs.attention_mask.to(device),
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.end_tokens,
                **sampling,
                **options,
            )  # (batch, length)


class ChatEngine(Engine):
    """A causal chat model. Prompts follow the chat template of its tokenizer."""

    auto_model = AutoModelForCausalLM
    names = LANGUAGE_NAMES  # of the languages, in prompts

    def __init__(self, model: str, revision: str, tokenizer: PreTrainedTokenizerBase):
        super().__init__(model, revision, tokenizer)
        if tokenizer.chat_template is None:
            raise UserError(f"the tokenizer of {model} has no chat template: choose an instruction-tuned model")
        tokenizer.padding_side = "left"  # generation continues the last token, which must not be padding
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        begins = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        self.beginning = tokenizer.bos_token if begins else ""

    @property
    def question(self) -> str:
        return f"{super().question}{TERMS}"

    def prompt(self, sentence: str, language: str) -> str:
        terms = ((english, term) for english, term in TERMS.get(language, {}).items() if english in sentence.lower())
        glossary = "".join(f'Translate "{english}" by "{term}".\n' for english, term in terms)
        question = PROMPT.format(language=self.names[language], sentence=sentence)
        turn = {"role": "user", "content": glossary + question}
        chat = self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        # The template of TowerInstruct omits the token at the beginning of every training text.
        return chat if chat.startswith(self.beginning) else self.beginning + chat

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        prompts = [self.prompt(sentence, language) for sentence in sentences]
        inputs = self.tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        tokens = self.generate(inputs, seed, max_new_tokens=self.max_new_tokens(sentences))
        return clean(self.tokenizer.batch_decode(tokens[:, inputs.input_ids.shape[1] :], skip_special_tokens=True))


class Seq2SeqEngine(Engine):
    """NLLB (its answers begin with a language token) or MADLAD (its prompts begin with a language token)."""

    auto_model = AutoModelForSeq2SeqLM

    def __init__(self, model: str, revision: str, tokenizer: PreTrainedTokenizerBase):
        super().__init__(model, revision, tokenizer)
        vocabulary = tokenizer.get_vocab()
        self.is_nllb = all(code in vocabulary for code in NLLB_CODES.values())
        if self.is_nllb:
            tokenizer.src_lang = NLLB_CODES["en"]
        elif not all(f"<2{language}>" in vocabulary for language in NLLB_CODES):
            raise UserError(f"{model} has neither the language tokens of NLLB (por_Latn) nor of MADLAD (<2pt>)")

    def prompt(self, sentence: str, language: str) -> str:
        return sentence if self.is_nllb else f"<2{language}> {sentence}"

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        options = {"max_new_tokens": self.max_new_tokens(sentences)}
        if self.is_nllb:
            options["forced_bos_token_id"] = self.tokenizer.convert_tokens_to_ids(NLLB_CODES[language])
        prompts = [self.prompt(sentence, language) for sentence in sentences]
        inputs = self.tokenizer(prompts, padding=True, return_tensors="pt")
        return clean(self.tokenizer.batch_decode(self.generate(inputs, seed, **options), skip_special_tokens=True))


class VLLMEngine(ChatEngine):
    """A chat model in vLLM, which is faster. It uses all GPUs from one process."""

    @cached_property
    def network(self) -> "vllm.LLM":  # noqa: F821
        """Model, loaded at the first use."""
        if PartialState().num_processes > 1:
            raise UserError("vLLM uses all GPUs by itself: start it in one process, without accelerate launch")
        with extra("vllm"):
            import vllm
        gpus = 2 ** int(math.log2(max(1, torch.cuda.device_count())))  # the number of heads must be divisible by it
        return vllm.LLM(self.model, revision=self.hub_revision, dtype="bfloat16", tensor_parallel_size=gpus, seed=0)

    def translate(self, sentences: Sequence[str], language: str, seed: int | None = None) -> list[str]:
        network = self.network  # raises UserError if vLLM is not installed
        import vllm

        sampling = {"temperature": 0.0} if seed is None else {"seed": seed, **SAMPLING}
        limits = {"max_tokens": self.max_new_tokens(sentences), "stop_token_ids": self.end_tokens}
        prompts = [self.prompt(sentence, language) for sentence in sentences]
        inputs = [{"prompt_token_ids": ids} for ids in self.tokenizer(prompts, add_special_tokens=False).input_ids]
        answers = network.generate(inputs, vllm.SamplingParams(**sampling, **limits), use_tqdm=False)
        return clean([answer.outputs[0].text for answer in answers])


def open_engine(kind: str, model: str, revision: str | None = None, portuguese: str | None = None) -> Engine:
    """
    Return the engine for a model. It loads the weights at the first translation.

    Args:
        kind (`str`): `transformers` or `vllm`.
        model (`str`): Folder or Hub id.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        portuguese (`str`, *optional*): `pt-BR` or `pt-PT`, the variety that the prompt asks for.

    Raises:
        [`~rsmclip.core.errors.UserError`]: The model cannot be read, no engine supports it, or its prompt names no
            variety.
    """
    with user_errors(OSError, ValueError, prefix=f"cannot load the translation model {model}"):
        config = AutoConfig.from_pretrained(model, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    with user_errors(OSError, prefix=f"cannot read the translation model {model}"):
        if Path(model).is_dir():
            commit = folder_hash(Path(model))
        else:  # offline, the commit in the cache
            commit = Path(hf_hub_download(model, "config.json", revision=revision)).parent.name
    if kind == "vllm":
        engine = VLLMEngine(model, commit, tokenizer)
    else:
        engine = (Seq2SeqEngine if config.is_encoder_decoder else ChatEngine)(model, commit, tokenizer)
    if portuguese and not isinstance(engine, ChatEngine):
        raise UserError(f"{model} is no chat model, so it cannot be asked for {portuguese}")
    if portuguese:
        engine.names = LANGUAGE_NAMES | {"pt": PORTUGUESE[portuguese]}
    return engine


def folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name}\n".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:40]


def clean(answers: Sequence[str]) -> list[str]:
    stripped = (answer.strip() for answer in answers)
    return [text[1:-1].strip() if is_quoted(text) else text for text in stripped]


def is_quoted(text: str) -> bool:
    return any(text[:1] + text[-1:] == marks and not set(marks) & set(text[1:-1]) for marks in QUOTATION_MARKS)
