"""The code in a model card, and its output. A fresh process that knows only the model folder runs the code.

In the code, the model is "USER/NAME" at "REVISION"; `push` replaces both. To run the code, the folder replaces the
name. `hub/snippet_process.py` describes the other differences from the machine of a reader.
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

from rsmclip.core.errors import UserError, user_errors
from rsmclip.eval.protocol import Benchmark, load_benchmark

REPOSITORY, PIN = '"USER/NAME"', 'revision="REVISION"'
BASE, BASE_PIN = '"BASE/MODEL"', 'revision="BASE_REVISION"'  # of an adapter
PROCESS = Path(__file__).parent / "snippet_process.py"
CANDIDATES = 5  # classes among which a picture is classified
TIMEOUT = 1800  # seconds

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
    """A picture and the classes among which it is classified, in one language."""

    file: str  # in the model folder
    language: str  # code
    right: str  # name of the true class
    labels: list[str]  # names of the candidate classes, `right` included
    template: str  # hypothesis template with one `{}`


def make_examples(recorded: dict, languages: Sequence[str]) -> list[Example]:
    """
    Make one example per language; the pictures take turns.

    Args:
        recorded (`dict`): From [`~rsmclip.hub.examples.write_examples`].
        languages (`Sequence[str]`): Language codes. A language without class names in the benchmark gets no example.
    """
    benchmark, pictures = load_benchmark(recorded["benchmark"]), list(recorded["labels"].items())
    known = [language for language in languages if language in benchmark.templates]
    return [
        make_example(*pictures[place % len(pictures)], language, benchmark, place)
        for place, language in enumerate(known)
    ]


def make_example(file: str, label: str, language: str, benchmark: Benchmark, place: int) -> Example:
    rng = np.random.default_rng([0, place])
    names = benchmark.class_names[language]  # without commas, which separate the labels of the widget
    others = rng.permutation([other for other in benchmark.labels if other != label])[: CANDIDATES - 1]
    labels = [names[other] for other in rng.permutation([label, *others])]
    return Example(file, language, names[label], labels, benchmark.templates[language][0])


def make_snippets(
    examples: Sequence[Example], is_adapter: bool = False, base: str | None = None, base_revision: str | None = None
) -> dict[str, str]:
    """
    Return the code of a card by title.

    Args:
        examples (`Sequence[Example]`): From [`make_examples`]; the first and the last are classified.
        is_adapter (`bool`, *optional*, defaults to `False`): Whether the folder contains an adapter.
        base (`str`, *optional*): Hub id of the model that the adapter changes.
        base_revision (`str`, *optional*): Commit of the base model.
    """
    first, last = examples[0], examples[-1]
    load, peft = (LOAD_ADAPTER, "from peft import PeftModel\n") if is_adapter else (LOAD, "")
    embed = EMBED.format(texts=as_list([first.template.replace("{}", label) for label in first.labels]))
    imports = f"import torch\n{PICTURES}\n{peft}from transformers import AutoModel, AutoProcessor"
    snippets = {
        "AutoModel": f"{imports}\n\n{load}\n{OPEN_PICTURE.format(file=first.file)}\n\n{embed}",
        "A pipeline": pipeline_code(first, is_adapter),
    }
    if last.language != first.language:
        snippets[f"A pipeline in another language ({last.language})"] = pipeline_code(last, is_adapter)
    if not is_adapter:  # sentence-transformers loads whole models only
        files = list(dict.fromkeys(example.file for example in examples))
        texts = [example.template.replace("{}", example.right) for example in examples[: len(files)]]
        encode = ENCODE.format(files=as_list(files), texts=as_list(texts))
        imports = f"{PICTURES}\nfrom sentence_transformers import SentenceTransformer"
        snippets["sentence-transformers"] = f"{imports}\n\n{encode}"
    if base is not None:
        pin = f"revision={quoted(base_revision)}" if base_revision else BASE_PIN
        snippets = {k: code.replace(BASE, quoted(base)).replace(BASE_PIN, pin) for k, code in snippets.items()}
    return snippets


def pipeline_code(example: Example, is_adapter: bool) -> str:
    classify = CLASSIFY.format(labels=as_list(example.labels), template=quoted(example.template))
    return f"{pipeline_setup(is_adapter)}\n{OPEN_PICTURE.format(file=example.file)}\n\n{classify}"


def pipeline_setup(is_adapter: bool) -> str:
    if not is_adapter:
        return f"{PICTURES}\nfrom transformers import pipeline\n\n{CLASSIFIER}"
    imports = f"{PICTURES}\nfrom peft import PeftModel\nfrom transformers import AutoModel, AutoProcessor, pipeline"
    return f"{imports}\n\n{LOAD_ADAPTER}\n{ADAPTER_CLASSIFIER}"


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def as_list(texts: Sequence[str]) -> str:
    line = f"[{', '.join(map(quoted, texts))}]"
    return line if len(line) <= 70 else "[\n" + "".join(f"    {quoted(text)},\n" for text in texts) + "]"


def run_snippets(
    codes: dict[str, str], examples: Sequence[Example], folder: Path, base: str | None
) -> tuple[dict[str, str], list[list[dict]]]:
    """
    Run the code of a card.

    Args:
        codes (`dict[str, str]`): From [`make_snippets`] without a base.
        examples (`Sequence[Example]`): Examples of the widget.
        folder (`Path`): Model folder.
        base (`str`, *optional*): Folder or Hub id of the model of an adapter.

    Returns:
        `tuple[dict[str, str], list[list[dict]]]`: Output of the code by title, and for each example the labels with
        their scores, the best first.

    Raises:
        [`UserError`]: A snippet fails.
    """
    # The scores of the widget come from the pipeline of the card.
    given = json.dumps([vars(example) for example in examples])
    widget = f"{pipeline_setup(base is not None)}\n{WIDGET.format(examples=repr(given), folder=REPOSITORY)}"
    # Replace names on the Hub by local folders, which have no revision.
    place, runnable = quoted(str(folder.resolve())), {}
    for title, code in (codes | {"widget": widget}).items():
        code = code.replace(f", {PIN}", "").replace(f", {BASE_PIN}", "")
        runnable[title] = code.replace(REPOSITORY, place).replace(BASE, quoted(str(base)))
    outputs = in_fresh_process(runnable)
    return outputs, [json.loads(line) for line in outputs.pop("widget").splitlines()]


def in_fresh_process(codes: dict[str, str]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": empty, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-P", str(PROCESS)]
        options = {"input": json.dumps(list(codes.values())), "capture_output": True, "text": True}
        with user_errors(OSError, subprocess.TimeoutExpired, prefix="the code of the card could not be run"):
            done = subprocess.run(command, cwd=empty, env=environment, timeout=TIMEOUT, encoding="utf-8", **options)
    outputs = dict(zip(codes, map(json.loads, done.stdout.splitlines()), strict=False))
    if done.returncode:
        title = next((title for title in codes if title not in outputs), "end")
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"the code of the card fails ({title}): {last}")
    return outputs
