"""Count how often the words of class names stand in captions of their class, in every language.

    python -m rsmclip.benchmarks.class_names CORPUS [--benchmark rsicd] > benchmarks/results/class_names.md

CORPUS has labels and translated captions; `rsmclip data build` makes it. The split `train` is counted, because names
that are chosen on a split fit this split. Equal captions of a class count once.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from datasets import Dataset

from rsmclip.benchmarks.training_tables import table
from rsmclip.core.command_line import OneLineParser, run_command
from rsmclip.data.schema import check_schema, load_corpus
from rsmclip.eval.evaluate import check_labels
from rsmclip.eval.protocol import Benchmark, load_benchmark

UNSPACED = ("zh", "ko")  # Chinese has no spaces, and Korean particles follow without one
ENDINGS = {"ru": 2}  # letters at the end of a word that inflection changes; one in other languages
LONGER = 2  # letters that inflection adds or removes


class Count(NamedTuple):
    """Captions of a class that have its name."""

    label: str
    name: str
    captions: int  # distinct captions of the class
    whole: int  # captions with every word of the name
    words: dict[str, int]  # captions with each word


def captions_by_class(rows: Dataset) -> dict[str, dict[str, set[str]]]:
    """Return the distinct captions by language and class."""
    found: dict[str, dict[str, set[str]]] = {}
    for label, captions in zip(rows["label"], rows["captions"], strict=True):
        for language, texts in captions.items():
            found.setdefault(language, {}).setdefault(label, set()).update(filter(None, texts or []))
    return found


def count_names(benchmark: Benchmark, captions: Mapping[str, Mapping[str, Collection[str]]]) -> Iterator[tuple]:
    """Yield each language with the counts of its names, rare ones first. A class without captions is left out."""
    for language, names in benchmark.class_names.items():
        known = captions.get(language, {})
        counts = [count_name(label, name, known[label], language) for label, name in names.items() if known.get(label)]
        if counts:
            yield language, sorted(counts, key=lambda count: count.whole / count.captions)


def count_name(label: str, name: str, captions: Collection[str], language: str) -> Count:
    if language in UNSPACED:
        having = {word: [word in text for text in captions] for word in name.split()}
    else:
        words = [word for word in split(name) if len(word) > 2]  # not "a", "de", "of"
        texts = [split(caption) for caption in captions]
        having = {word: [has_word(text, word, ENDINGS.get(language, 1)) for text in texts] for word in words}
    whole = sum(map(all, zip(*having.values(), strict=True)))
    return Count(label, name, len(captions), whole, {word: sum(found) for word, found in having.items()})


def split(text: str) -> list[str]:
    """Return the words of a text without accents, because plurals change them: Wald, Wälder."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[^\W\d_]+", "".join(letter for letter in plain if not unicodedata.combining(letter)))


def has_word(text: Iterable[str], word: str, ending: int) -> bool:
    """Return whether a text has a word, perhaps with another ending of that many letters."""
    stem = word[: max(len(word) - ending, 3)]
    return any(other.startswith(stem) and abs(len(other) - len(word)) <= LONGER for other in text)


def print_tables(corpus: str, benchmark_name: str) -> None:
    rows, benchmark = check_schema(load_corpus(corpus), "train", ["en"]), load_benchmark(benchmark_name)
    check_labels(rows["label"], benchmark)
    print(f"# Class names of {benchmark.title} in captions of their class\n")
    print(
        f"`python -m rsmclip.benchmarks.class_names CORPUS --benchmark {benchmark_name}`, distinct captions in `train`"
    )
    for language, counts in count_names(benchmark, captions_by_class(rows)):
        never = sum(count.whole == 0 for count in counts)
        share = 100 * sum(count.whole / count.captions for count in counts) / len(counts)
        print(f"\n## {language}\n\nNames in no caption: {never} of {len(counts)}.", end=" ")
        print(f"Captions with the name of their class: {share:.0f} % (mean over classes).\n")
        cells = [[*count[:4], ", ".join(f"{word} {n}" for word, n in count.words.items())] for count in counts]
        print(table(["class", "name", "captions", "with every word", "with each word"], cells))


def main() -> None:
    parser = OneLineParser(prog="python -m rsmclip.benchmarks.class_names", description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", help="corpus with labels and translations, built by rsmclip data build")
    parser.add_argument("--benchmark", default="rsicd", help="benchmark with the names (default: rsicd)")
    arguments = parser.parse_args()
    run_command(lambda: print_tables(arguments.corpus, arguments.benchmark), parser.prog)


if __name__ == "__main__":
    main()
