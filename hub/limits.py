"""Sentences on the limits of a model and of its evaluation, made from the figures."""

from collections.abc import Iterator, Sequence

from rsmclip.eval.run_results import RunResults
from rsmclip.hub.evaluations import Evaluation

WORST = 5  # classes
COMPARED = {"mean_recall": "mean recall", "zero_shot_accuracy": "zero-shot accuracy"}
FEW = 20  # images; the recall of a class with fewer images is a rough figure


def limits(results: RunResults) -> list[str]:
    """Return sentences about the weak points of a model and about the limits of its figures."""
    by_key = {(record["language"], record["metric"]): record for record in results.figures}
    return [
        *on_the_start(results),
        *on_chance(by_key, results.languages),
        *on_languages(by_key, results.languages),
        *on_classes(results.class_recall),
        *on_equal_captions(by_key),
        *on_the_split(results),
    ]


def not_measured(results: RunResults, further: Sequence[Evaluation]) -> list[str]:
    """Return sentences about what the evaluations of a card say nothing about."""
    measured = [results.figures, *(evaluation.figures for evaluation in further)]
    metrics = {record["metric"] for figures in measured for record in figures}
    trained, evaluated = results.training["languages"], results.languages
    sentences = []
    if "zero_shot_accuracy" not in metrics:
        sentences.append("Zero-shot classification: no figure of this card is about it.")
    elif not any(record["metric"] == "zero_shot_accuracy" for record in results.figures):
        sentences.append(f"Zero-shot classification on `{results.dataset}`.")
    if unseen := [f"`{code}`" for code in trained if code not in evaluated]:
        sentences.append(f"Languages that the model was trained in, on `{results.dataset}`: {', '.join(unseen)}.")
    if not results.untrained:
        sentences.append("The model before this training: it is not known how much the training changed the figures.")
    if not any(evaluation.dataset != results.dataset for evaluation in further):
        sentences.append(
            f"Images of other datasets: all figures are about `{results.dataset}`, the corpus of the run."
        )
    return [*sentences, "Other sensors, resolutions and regions than those of the images above."]


def on_the_start(results: RunResults) -> Iterator[str]:
    """Yield a sentence for each dataset and metric with languages that are below their figure before training."""
    own = {"figures": results.figures, "untrained": results.untrained}
    for name, found in {results.dataset: own, **results.benchmarks}.items():
        for metric, what in COMPARED.items():
            lower = [
                f"`{record['language']}` {shown(record)}, {start[metric]:.1f} before"
                for record in found["figures"]
                if record["metric"] == metric
                and (start := found["untrained"].get(record["language"], {})).get(metric, 0) >= record["value"] + 0.05
            ]
            if lower:
                yield (
                    f"The {what} on `{name}` is below its value before training in these languages: "
                    f"{'; '.join(lower)}. No test says which of these differences are real."
                )


def on_chance(by_key: dict, languages: list[str]) -> Iterator[str]:
    for metric, what in COMPARED.items():
        known = {code: by_key[code, metric] for code in languages if (code, metric) in by_key}
        low = [f"`{code}`" for code, found in known.items() if found["interval"][0] <= found.get("chance", -1)]
        if low:
            yield f"The {what} is not above a random answer by more than chance explains in {', '.join(low)}."


def on_languages(by_key: dict, languages: list[str]) -> Iterator[str]:
    for metric, what in COMPARED.items():
        known = {code: by_key[code, metric] for code in languages if (code, metric) in by_key}
        worst, best = (choose(known, key=lambda code: known[code]["value"], default=None) for choose in (min, max))
        if worst != best:
            lowest, highest = f"`{worst}`: {shown(known[worst])}", f"`{best}`: {shown(known[best])}"
            yield f"The {what} is lowest in {lowest}. Highest is {highest}."
    gap = "mean_recall_gap_to_english"
    gaps = {code: by_key[code, gap] for code, metric in by_key if metric == gap and code != "mean"}
    if not gaps:
        return
    widest = max(gaps, key=lambda code: gaps[code]["value"])
    if gaps[widest]["value"] > 0:
        yield (
            f"On the same captions, the mean recall of English is {shown(gaps[widest])} points above `{widest}`, the "
            "widest gap."
        )
    behind = [f"`{code}`" for code in languages if code in gaps and gaps[code]["interval"][0] > 0]
    yield f"Languages behind English by more than chance explains: {', '.join(behind) or 'none'}."
    others = [code for code in languages if code != "en" and (code, "mean_recall") in by_key and code not in gaps]
    if others:
        named = ", ".join(f"`{code}`" for code in others)
        yield f"Not compared, because some of their captions have no English original: {named}."


def shown(record: dict) -> str:
    low, high = record["interval"]
    return f"{record['value']:.1f} (95 % interval {low:.1f} to {high:.1f})"


def on_classes(class_recall: dict) -> Iterator[str]:
    means = {label: sum(found["recall"].values()) / len(found["recall"]) for label, found in class_recall.items()}
    if worst := sorted(means, key=means.get)[: min(WORST, len(means) // 2)]:
        lines = "".join(f"\n    - {on_a_class(label, means[label], class_recall[label])}" for label in worst)
        yield f"The worst of {len(means)} classes, on average over the languages:{lines}"
    if few := sum(found["images"] < FEW for found in class_recall.values()):
        yield f"{few} of {len(class_recall)} classes have fewer than {FEW} test images: their figures are rough."


def on_a_class(label: str, mean: float, found: dict) -> str:
    recall = found["recall"]
    low, high = (choose(recall, key=recall.get) for choose in (min, max))
    spread = f", from {recall[low]:.0f} in `{low}` to {recall[high]:.0f} in `{high}`" if low != high else ""
    taken = f"; most often taken for `{found['taken_for']}`" if found["taken_for"] else ""
    return f"`{label}`: {mean:.0f} % of {found['images']} images{spread}{taken}"


def on_equal_captions(by_key: dict) -> Iterator[str]:
    usual, right = "mean_recall", "mean_recall_duplicates_right"
    languages = [{language for language, metric in by_key if metric == name} for name in (usual, right)]
    means = [("mean", "over the languages")] if languages[0] == languages[1] else []
    for language, where in (*means, ("en", "in English")):
        if (language, usual) in by_key and (language, right) in by_key:
            yield (
                "Several test images have the same caption, and recall accepts only one image per caption. If all "
                f"images with a caption count as right, the mean recall {where} is {shown(by_key[language, right])} "
                f"instead of {shown(by_key[language, usual])}."
            )
            return


def on_the_split(results: RunResults) -> Iterator[str]:
    if results.split == results.training["train_split"]:
        yield f"The figures are over `{results.split}`, the training split: they say nothing about new images."
    elif results.split == results.training["validation_split"]:
        yield f"The split `{results.split}` was also used for validation: choices made on it improve the figures."
    if results.kept and (chooser := results.kept["figure"].split("/")[0]) in results.benchmarks:
        yield f"The images of `{chooser}` chose the step that is the model: their figures are no test of it."
    if count := len(results.undecodable_images):
        yield f"Training images that could not be decoded and were not used: {count}."
