"""The tables of an evaluation, for the terminal and, as Markdown, for the model card."""

import numpy as np

Table = tuple[list[str], list[list[str]]]  # header and rows

RECALLS = {f"{direction}_recall@{k}": f"{arrow} R@{k}" for direction, arrow in
           (("image_to_text", "i→t"), ("text_to_image", "t→i")) for k in (1, 5, 10)}  # fmt: skip
COLUMNS = RECALLS | {"mean_recall": "mean recall", "zero_shot_accuracy": "zero-shot"}
INTERVALS = ("mean_recall", "zero_shot_accuracy")  # shown in tables; all are in the results
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
    """The table in aligned columns, with a rule below the header and above the mean, if there is one."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    left = [not any(line[column][:1].isdigit() for line in rows) for column in range(len(header))]  # text
    lines = [
        "  ".join(
            cell.ljust(width) if left[column] else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *rows]
    ]
    rule = "─" * len(lines[0])
    mean = next((index for index, line in enumerate(rows, 1) if line[0] == "mean"), None)
    if mean is None:
        return "\n".join([lines[0], rule, *lines[1:]])
    return "\n".join([lines[0], rule, *lines[1:mean], rule, *lines[mean:]])


def as_markdown(header: list[str], rows: list[list[str]]) -> str:
    """The table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure_tables(figures: list[dict]) -> dict[str, Table]:
    """
    The tables of a dataset by title; figures are in percent with one decimal, those with an interval as
    `27.8 (26.1–29.5)`.

    Args:
        figures (`list[dict]`): What [`~rsmclip.eval.intervals.figures`] gave.
    """
    by_key = {(record["language"], record["metric"]): record for record in figures if "to" not in record}
    languages = list(dict.fromkeys(language for language, _ in by_key if language not in (None, "mean")))
    tables = {"By language": language_table(by_key, languages, COLUMNS)}
    more = {
        "zero_shot_top5_accuracy": "zero-shot top 5",
        "zero_shot_mean_per_class_recall": "mean per-class recall",
        "image_to_text_median_rank": "i→t median rank",
        "text_to_image_median_rank": "t→i median rank",
        "mean_recall_duplicates_right": "mean recall, equal captions right",
        "mean_recall_gap_to_english": "gap to English",
    }
    tables["More by language"] = language_table(by_key, languages, more)
    probes = [record for record in figures if record["language"] is None]
    tables["Probes"] = ["probe", "value"], [[record["metric"], with_interval(record)] for record in probes]
    pairs = {(record["language"], record["to"]): record["value"] for record in figures if "to" in record}
    spoken = list(dict.fromkeys(language for language, _ in pairs))
    cells = [[one, *(f"{pairs[one, other]:.1f}" if one != other else "" for other in spoken)] for one in spoken]
    tables["A sentence finds its translation, recall@1, from (row) to (column)"] = ["from", *spoken], cells
    return {title: table for title, table in tables.items() if table[1] and len(table[0]) > 1}


def language_table(by_key: dict[tuple[str, str], dict], languages: list[str], columns: dict[str, str]) -> Table:
    """A row a language, their mean, and chance."""
    columns = {
        metric: title for metric, title in columns.items() if any((code, metric) in by_key for code in languages)
    }

    def cell(language: str, metric: str) -> str:
        record = by_key.get((language, metric))
        if record is None:
            return "–"
        return with_interval(record) if metric in INTERVALS else f"{record['value']:.1f}"

    rows = [[language, *(cell(language, metric) for metric in columns)] for language in languages]
    if len(languages) > 1:
        rows.append(["mean", *(cell("mean", metric) for metric in columns)])
    chances = {
        metric: [by_key[code, metric]["chance"] for code in languages if "chance" in by_key.get((code, metric), {})]
        for metric in columns
    }
    if any(chances.values()):
        rows.append(["chance", *(f"{np.mean(found):.1f}" if found else "–" for found in chances.values())])
    return ["language", *columns.values()], rows


def with_interval(record: dict) -> str:
    """A figure and its 95 % interval."""
    low, high = record["interval"]
    return f"{record['value']:.1f} ({low:.1f}–{high:.1f})"
