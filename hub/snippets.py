"""The code in a model's card, and what it prints: run in one fresh process that knows the model's folder alone.

In the card the model is "USER/NAME" at "REVISION", which `push` replaces. To run, the folder takes the place of the
name; `hub/snippet_process.py` says what else differs from a reader's machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsmclip.eval.protocol import Benchmark, load_benchmark

REPOSITORY, PIN = '"USER/NAME"', 'revision="REVISION"'
BASE, BASE_PIN = '"BASE/MODEL"', 'revision="BASE_REVISION"'  # of an adapter
PROCESS = Path(__file__).parent / "snippet_process.py"
CANDIDATES = 5  # labels that a picture is classified among
TIMEOUT = 1800  # seconds
FAMILIES = ("ACCELERATE_", "FSDP_", "MASTER_", "TORCHELASTIC_")  # variables of a launched process
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")

PICTURES = "from huggingface_hub import hf_hub_download\nfrom PIL import Image"
OPEN_PICTURE = f"""image = Image.open(hf_hub_download({REPOSITORY}, "{{file}}", {PIN}))"""
LOAD = f"""model = AutoModel.from_pretrained({REPOSITORY}, trust_remote_code=True, {PIN})
processor = AutoProcessor.from_pretrained({REPOSITORY}, trust_remote_code=True, {PIN})"""
LOAD_ADAPTER = f"""base = AutoModel.from_pretrained({BASE}, trust_remote_code=True, {BASE_PIN})
model = PeftModel.from_pretrained(base, {REPOSITORY}, {PIN}).merge_and_unload()
processor = AutoProcessor.from_pretrained({REPOSITORY}, trust_remote_code=True, {PIN})"""
CLASSIFIER = f"""classifier = pipeline(
    "zero-shot-image-classification", {REPOSITORY}, trust_remote_code=True, {PIN}
)"""
ADAPTER_CLASSIFIER = """classifier = pipeline(
    "zero-shot-image-classification",
    model=model,
    tokenizer=processor.tokenizer,
    image_processor=processor.image_processor,
)"""
EMBED = """texts = {texts}
inputs = processor(text=texts, images=image, padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    scores = model(**inputs).logits_per_image.softmax(dim=-1)[0].tolist()
for score, text in sorted(zip(scores, texts), reverse=True):
    print(f"{{score:.3f}}  {{text}}")"""
CLASSIFY = """labels = {labels}
template = {template}
for found in classifier(image, candidate_labels=labels, hypothesis_template=template):
    print(f"{{found['score']:.3f}}  {{found['label']}}")"""
ENCODE = f"""model = SentenceTransformer({REPOSITORY}, trust_remote_code=True, {PIN})
files = {{files}}
images = [Image.open(hf_hub_download({REPOSITORY}, file, {PIN})) for file in files]
texts = {{texts}}
similarity = model.similarity(model.encode(texts), model.encode(images))  # (texts, images)
for text, row in zip(texts, similarity.tolist()):
    print(*(f"{{{{value:6.3f}}}}" for value in row), text)"""
WIDGET = """import json

for example in json.loads({examples}):
    image = Image.open({folder} + "/" + example["file"])
    found = classifier(image, candidate_labels=example["labels"], hypothesis_template=example["template"])
    print(json.dumps(found))"""


@dataclass(frozen=True)
class Example:
    """
    A picture with what it is classified among.

    Args:
        file (`str`): Its file in the folder.
        language (`str`): Code of the language.
        right (`str`): The name of its class.
        labels (`list[str]`): Names of classes, the right one among them.
        template (`str`): Hypothesis template with one `{}`.
    """

    file: str
    language: str
    right: str
    labels: list[str]
    template: str

    @property
    def texts(self) -> list[str]:
        """The labels in sentences."""
        return [self.template.replace("{}", label) for label in self.labels]


@dataclass(frozen=True)
class Snippet:
    """
    Code with what it printed.

    Args:
        code (`str`): The code as the card has it.
        output (`str`, *optional*): What it printed, if it was run.
        missing (`str`, *optional*): The package for want of which it was not run.
    """

    code: str
    output: str | None = None
    missing: str | None = None


def make_examples(recorded: dict, languages: Sequence[str]) -> list[Example]:
    """
    An example in each language, the pictures taking turns.

    Args:
        recorded (`dict`): What [`~rsmclip.hub.examples.write_examples`] gave.
        languages (`Sequence[str]`): Language codes; those in which the benchmark has no names are left out.
    """
    benchmark, pictures = load_benchmark(recorded["benchmark"]), list(recorded["labels"].items())
    known = [language for language in languages if language in benchmark.templates]
    return [
        make_example(*pictures[place % len(pictures)], language, benchmark, place)
        for place, language in enumerate(known)
    ]


def make_example(file: str, label: str, language: str, benchmark: Benchmark, place: int) -> Example:
    """A picture among some classes that are drawn by lot, in one language."""
    rng, names = np.random.default_rng([0, place]), benchmark.class_names[language]
    others = rng.permutation([other for other in benchmark.labels if other != label])[: CANDIDATES - 1]
    labels = [without_comma(names[other]) for other in rng.permutation([label, *others])]
    return Example(file, language, without_comma(names[label]), labels, benchmark.templates[language][-1])


def without_comma(name: str) -> str:
    """The name of a class without commas, which part the widget's labels."""
    return name.replace(",", "")


def make_snippets(examples: Sequence[Example], adapter: bool) -> dict[str, str]:
    """
    The code of a card by title.

    Args:
        examples (`Sequence[Example]`): What [`make_examples`] gave; the first and the last are classified.
        adapter (`bool`): Whether the folder holds an adapter alone.
    """
    first, last = examples[0], examples[-1]
    load, peft = (LOAD_ADAPTER, "from peft import PeftModel\n") if adapter else (LOAD, "")
    embed = EMBED.format(texts=as_list(first.texts))
    imports = f"import torch\n{PICTURES}\n{peft}from transformers import AutoModel, AutoProcessor"
    snippets = {
        "AutoModel": f"{imports}\n\n{load}\n{opened(first)}\n\n{embed}",
        "A pipeline": classifies(first, adapter),
    }
    if last.language != first.language:
        snippets[f"A pipeline in another language ({last.language})"] = classifies(last, adapter)
    if not adapter:  # sentence-transformers loads whole models only
        files = list(dict.fromkeys(example.file for example in examples))
        texts = [example.template.replace("{}", example.right) for example in examples[: len(files)]]
        encode = ENCODE.format(files=as_list(files), texts=as_list(texts))
        imports = f"{PICTURES}\nfrom sentence_transformers import SentenceTransformer"
        snippets["sentence-transformers"] = f"{imports}\n\n{encode}"
    return snippets


def opened(example: Example) -> str:
    """Code that opens an example's picture."""
    return OPEN_PICTURE.format(file=example.file)


def classifies(example: Example, adapter: bool) -> str:
    """Code that classifies an example in a pipeline."""
    classify = CLASSIFY.format(labels=as_list(example.labels), template=quoted(example.template))
    return f"{pipeline_setup(adapter)}\n{opened(example)}\n\n{classify}"


def pipeline_setup(adapter: bool) -> str:
    """Code that makes a pipeline."""
    if not adapter:
        return f"{PICTURES}\nfrom transformers import pipeline\n\n{CLASSIFIER}"
    imports = f"{PICTURES}\nfrom peft import PeftModel\nfrom transformers import AutoModel, AutoProcessor, pipeline"
    return f"{imports}\n\n{LOAD_ADAPTER}\n{ADAPTER_CLASSIFIER}"


def with_base(codes: dict[str, str], base: str | None, revision: str | None) -> dict[str, str]:
    """The code of an adapter's card with the model that it belongs to, as far as that is known on the Hub."""
    if base is None:
        return codes
    pin = f"revision={quoted(revision)}" if revision else BASE_PIN
    return {title: code.replace(BASE, quoted(base)).replace(BASE_PIN, pin) for title, code in codes.items()}


def quoted(text: str) -> str:
    """A string in Python's source, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def as_list(texts: Sequence[str]) -> str:
    """A list of strings in Python's source, on several lines if it is long."""
    line = f"[{', '.join(map(quoted, texts))}]"
    return line if len(line) <= 70 else "[\n" + "".join(f"    {quoted(text)},\n" for text in texts) + "]"


def run_snippets(
    codes: dict[str, str], examples: Sequence[Example], folder: Path, base: str | None
) -> tuple[dict[str, Snippet], list[list[dict]]]:
    """
    Runs the code of a card.

    Args:
        codes (`dict[str, str]`): What [`make_snippets`] gave.
        examples (`Sequence[Example]`): What the widget shows.
        folder (`Path`): The model's folder.
        base (`str`, *optional*): Folder or Hub id of the model that an adapter belongs to.

    Returns:
        `tuple[dict[str, Snippet], list[list[dict]]]`: The snippets by title, and for each example the labels with
        their scores, the best first.

    Raises:
        `ValueError`: A snippet fails.
    """
    place = quoted(str(folder.resolve()))
    setup = pipeline_setup(adapter=base is not None)
    given = json.dumps([vars(example) for example in examples])
    widget = f"{setup}\n{WIDGET.format(examples=repr(given), folder=REPOSITORY)}"
    runnable = [
        code.replace(f", {PIN}", "").replace(REPOSITORY, place).replace(BASE, quoted(str(base)))
        for code in (*codes.values(), widget)
    ]
    runnable = [code.replace(f", {BASE_PIN}", "") for code in runnable]
    outcomes = in_fresh_process(runnable)
    if error := outcomes[-1]["error"]:
        title = [*codes, "widget"][len(outcomes) - 1]
        raise ValueError(f"the card's code fails on {folder} ({title}): {error}")
    *outcomes, shown = outcomes
    snippets = {
        title: Snippet(code, outcome["output"], outcome["missing"])
        for (title, code), outcome in zip(codes.items(), outcomes, strict=True)
    }
    return snippets, [json.loads(line) for line in shown["output"].splitlines()]


def in_fresh_process(codes: Sequence[str]) -> list[dict]:
    """What each code did, up to the first that failed: its `output`, its `error`, or the package that is `missing`."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(FAMILIES) and name not in LAUNCHED
    }
    with tempfile.TemporaryDirectory() as empty:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": empty, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-P", str(PROCESS)]
        options = {"input": json.dumps(codes), "capture_output": True, "text": True, "encoding": "utf-8"}
        try:
            done = subprocess.run(command, cwd=empty, env=environment, timeout=TIMEOUT, check=True, **options)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"the card's code did not end within {TIMEOUT} s") from error
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
            raise ValueError(f"the process that runs the card's code failed: {last}") from error
    return json.loads(done.stdout.splitlines()[-1])
