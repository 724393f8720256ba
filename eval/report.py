"""The table of an evaluation, for the terminal and, as Markdown, for the model card."""

import numpy as np

RECALLS = {f"{direction}_recall@{k}": f"{arrow} R@{k}" for direction, arrow in
           (("image_to_text", "i→t"), ("text_to_image", "t→i")) for k in (1, 5, 10)}  # fmt: skip
COLUMNS = RECALLS | {"mean_recall": "mean recall", "zero_shot_accuracy": "zero-shot"}
CHANCE = {"mean_recall": "chance_mean_recall", "zero_shot_accuracy": "chance_zero_shot_accuracy"}


def mean_over_languages(results: dict[str, dict[str, float]], metric: str) -> float | None:
    """Mean of a metric over the languages that have it."""
    values = [result[metric] for result in results.values() if metric in result]
    return float(np.mean(values)) if values else None


def result_table(
    results: dict[str, dict[str, float]], untrained: dict[str, dict[str, float]] | None = None
) -> tuple[list[str], list[list[str]]]:
    """
    One row a language, their mean, and the floors: the same model before training, and chance.

    Args:
        results (`dict[str, dict[str, float]]`):
            What [`~rsmclip.eval.evaluate.evaluate_corpus`] gave.
        untrained (`dict[str, dict[str, float]]`, *optional*):
            The same of the model before training.

    Returns:
        `tuple[list[str], list[list[str]]]`: Header and rows; figures are in percent with one decimal.
    """
    columns = {metric: title for metric, title in COLUMNS.items() if any(metric in r for r in results.values())}

    def row(title: str, values: dict[str, float | None]) -> list[str]:
        shown = [values.get(metric) for metric in columns]
        return [title, *("–" if value is None else f"{value:.1f}" for value in shown)]

    rows = [row(language, result) for language, result in results.items()]
    rows.append(row("mean", {metric: mean_over_languages(results, metric) for metric in columns}))
    if untrained:
        rows.append(row("untrained", {metric: mean_over_languages(untrained, metric) for metric in columns}))
    chance = {metric: mean_over_languages(results, CHANCE[metric]) for metric in columns if metric in CHANCE}
    rows.append(row("chance", chance))
    return ["language", *columns.values()], rows


def as_text(header: list[str], rows: list[list[str]]) -> str:
    """The table in aligned columns, with a rule below the header and above the mean."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *rows]
    ]
    rule = "─" * len(lines[0])
    mean = next(index for index, line in enumerate(rows, 1) if line[0] == "mean")
    return "\n".join([lines[0], rule, *lines[1:mean], rule, *lines[mean:]])


def as_markdown(header: list[str], rows: list[list[str]]) -> str:
    """The table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
