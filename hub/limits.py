"""What an evaluation says against its model, in sentences made from its figures."""

from collections.abc import Iterator

WORST = 5  # classes
FEW = 20  # images of a class, below which its recall is a rough figure


def limits(results: dict) -> list[str]:
    """
    Sentences on what a model does badly and what its figures do not tell.

    Args:
        results (`dict`): What a run's `eval_results.json` holds.
    """
    by_key = {(record["language"], record["metric"]): record for record in results["figures"]}
    return [
        *languages_told(by_key, results["languages"]),
        *classes_told(results["class_recall"]),
        *captions_told(by_key),
        *split_told(results),
    ]


def languages_told(by_key: dict, languages: list[str]) -> Iterator[str]:
    """The worst languages, and how far they are behind English."""
    for metric, what in (("mean_recall", "Retrieval (mean recall)"), ("zero_shot_accuracy", "Zero-shot accuracy")):
        known = {code: by_key[code, metric] for code in languages if (code, metric) in by_key}
        if len(known) > 1:
            worst, best = (choose(known, key=lambda code: known[code]["value"]) for choose in (min, max))
            yield f"{what} is lowest in `{worst}`: {told(known[worst])}. Highest is `{best}`: {told(known[best])}."
    gaps = {language: record for (language, metric), record in by_key.items()
            if metric == "mean_recall_gap_to_english" and language != "mean"}  # fmt: skip
    if gaps:
        behind = [code for code in languages if code in gaps and gaps[code]["interval"][0] > 0]
        widest = max(gaps, key=lambda code: gaps[code]["value"])
        if gaps[widest]["value"] > 0:
            yield (
                f"Over the same captions, English has a mean recall {told(gaps[widest])} points above `{widest}`, the "
                "widest gap."
            )
        yield (
            "Languages that are behind English by more than chance explains: "
            f"{', '.join(f'`{code}`' for code in behind) or 'none'}."
        )


def told(record: dict) -> str:
    """A figure and its 95 % interval, in words."""
    low, high = record["interval"]
    return f"{record['value']:.1f} (95 % interval {low:.1f} to {high:.1f})"


def classes_told(class_recall: dict) -> Iterator[str]:
    """The classes that are recognised worst over all languages."""
    means = {label: sum(found["recall"].values()) / len(found["recall"]) for label, found in class_recall.items()}
    if worst := sorted(means, key=means.get)[: min(WORST, len(means) // 2)]:
        lines = "".join(f"\n    - {class_told(label, means[label], class_recall[label])}" for label in worst)
        yield f"Of its {len(means)} classes it recognises these worst, in the mean over the languages:{lines}"
    if few := sum(found["images"] < FEW for found in class_recall.values()):
        yield (f"Classes with fewer than {FEW} test images, so that these are rough: {few} of {len(class_recall)}.")


def class_told(label: str, mean: float, found: dict) -> str:
    """How badly a class is recognised."""
    recall = found["recall"]
    low, high = (choose(recall, key=recall.get) for choose in (min, max))
    spread = f", from {recall[low]:.0f} in `{low}` to {recall[high]:.0f} in `{high}`" if low != high else ""
    taken = f"; most often taken for `{found['taken_for']}`" if found["taken_for"] else ""
    return f"`{label}`: {mean:.0f} % of {found['images']} images{spread}{taken}"


def captions_told(by_key: dict) -> Iterator[str]:
    """What equal captions do to recall."""
    usual, right = (
        {language for language, metric in by_key if metric == name}
        for name in ("mean_recall", "mean_recall_duplicates_right")
    )
    means = [("mean", "over the languages")] if usual == right else []  # else they would be of different languages
    for language, where in (*means, ("en", "in English")):
        usual = by_key.get((language, "mean_recall"))
        right = by_key.get((language, "mean_recall_duplicates_right"))
        if usual and right:
            yield (
                "Several test images have the same caption, and recall counts all but one of them as wrong. With each "
                f"of them right, the mean recall {where} is {told(right)} in place of {told(usual)}."
            )
            return


def split_told(results: dict) -> Iterator[str]:
    """What makes the split a poor judge, and what training lacked."""
    training, split = results["training"], results["split"]
    if split == training["train_split"]:
        yield f"The figures are over `{split}`, which the model was trained on: they tell nothing of new images."
    elif split == training["validation_split"]:
        yield f"The split `{split}` was also watched during training: choices made on it flatter the figures."
    if count := len(results["undecodable_images"]):
        yield f"{count} training image{'s' if count > 1 else ''} could not be decoded and took no part."
