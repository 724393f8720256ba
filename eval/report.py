"""Tables of an evaluation, for the terminal and in Markdown."""

import unicodedata

import numpy as np

Table = tuple[list[str], list[list[str]]]  # header and rows

ARROWS = {"image_to_text": "i→t", "text_to_image": "t→i"}
RECALLS = {f"{direction}_recall@{k}": f"{arrow} R@{k}" for direction, arrow in ARROWS.items() for k in (1, 5, 10)}
COLUMNS = RECALLS | {
    "mean_recall": "mean recall",
    "zero_shot_accuracy": "zero-shot",
    "transductive_accuracy": "transductive",
}
MORE_COLUMNS = {
    "zero_shot_top5_accuracy": "zero-shot top 5",
    "zero_shot_mean_per_class_recall": "mean per-class recall",
    "transductive_mean_per_class_recall": "mean per-class recall, transductive",
    "image_to_text_median_rank": "i→t median rank",
    "text_to_image_median_rank": "t→i median rank",
    "mean_recall_duplicates_right": "mean recall, equal captions right",
    "mean_recall_gap_to_english": "gap to English",
}
INTERVALS = ("mean_recall", "zero_shot_accuracy", "transductive_accuracy")  # columns with an interval


def mean_over_languages(results: dict[str, dict[str, float]], metric: str) -> float | None:
    """Return the mean of a metric over the languages that have it, or `None` if no language has it."""
    values = [result[metric] for result in results.values() if metric in result]
    return float(np.mean(values)) if values else None


def result_table(results: dict[str, dict[str, float]], untrained: dict[str, dict[str, float]] | None = None) -> Table:
    """
    Make the table of a training run: a row for each language, for their mean, for the model before training, and for
    chance.

    Args:
        results (`dict[str, dict[str, float]]`): Metrics from [`~rsmclip.eval.evaluate.metrics_by_language`].
        untrained (`dict[str, dict[str, float]]`, *optional*): Metrics of the model before training.

    Returns:
        `tuple[list[str], list[list[str]]]`: Header and rows. Figures are in percent with one decimal.
    """
    columns = {metric: title for metric, title in COLUMNS.items() if any(metric in r for r in results.values())}
    means = {metric: mean_over_languages(results, metric) for metric in columns}
    floor = {metric: mean_over_languages(untrained or {}, metric) for metric in columns}
    chance = {metric: mean_over_languages(results, f"chance_{metric}") for metric in columns}
    lines = results | {"mean": means} | ({"start": floor} if untrained else {}) | {"chance": chance}
    rows = [[title, *(decimal(values.get(metric)) for metric in columns)] for title, values in lines.items()]
    return ["language", *columns.values()], rows


def decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def as_text(header: list[str], rows: list[list[str]]) -> str:
    """Format a table in aligned columns, with a rule below the header and a rule above the row `mean`."""
    widths = [max(cells(line[column]) for line in [header, *rows]) for column in range(len(header))]
    is_text = [not any(line[column][:1].isdigit() for line in rows) for column in range(len(header))]

    def aligned(line: list[str]) -> str:
        columns = zip(line, widths, is_text, strict=True)
        return "  ".join(pad(text, width) if left else text.rjust(width) for text, width, left in columns)

    lines = [aligned(line) for line in [header, *rows]]
    rule = "─" * cells(lines[0])
    lines.insert(1, rule)
    if mean := next((index for index, line in enumerate(rows, 2) if line[0] == "mean"), None):
        lines.insert(mean, rule)
    return "\n".join(lines)


def cells(text: str) -> int:
    """Return the columns of a terminal that a text takes. East Asian letters take two, accents of their own none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def pad(text: str, width: int) -> str:
    """Add spaces to a text until it takes `width` columns of a terminal."""
    return text + " " * (width - cells(text))


def as_markdown(header: list[str], rows: list[list[str]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure_tables(figures: list[dict]) -> dict[str, Table]:
    """
    Make the tables of a dataset from records of [`~rsmclip.eval.intervals.figures`].

    Returns:
        `dict[str, tuple[list[str], list[list[str]]]]`: Header and rows by title. Figures are in percent with one
            decimal; a figure with its interval is written `27.8 (26.1–29.5)`. Empty tables are left out.
    """
    by_key = {(record["language"], record["metric"]): record for record in figures if "to" not in record}
    languages = list(dict.fromkeys(language for language, _ in by_key if language not in (None, "mean")))
    tables = {"By language": language_table(by_key, languages, COLUMNS)}
    tables["More by language"] = language_table(by_key, languages, MORE_COLUMNS)
    probes = [record for record in figures if record["language"] is None]
    tables["Probes"] = ["probe", "value"], [[record["metric"], with_interval(record)] for record in probes]
    pairs = {(record["language"], record["to"]): record["value"] for record in figures if "to" in record}
    spoken = list(dict.fromkeys(language for language, _ in pairs))
    cells = [[one, *(f"{pairs[one, other]:.1f}" if one != other else "" for other in spoken)] for one in spoken]
    tables["A sentence finds its translation, recall@1, from (row) to (column)"] = ["from", *spoken], cells
    return {title: table for title, table in tables.items() if table[1] and len(table[0]) > 1}


def language_table(by_key: dict[tuple[str, str], dict], languages: list[str], columns: dict[str, str]) -> Table:
    columns = {
        metric: title for metric, title in columns.items() if any((code, metric) in by_key for code in languages)
    }

    def cell(language: str, metric: str) -> str:
        record = by_key.get((language, metric))
        return with_interval(record) if record and metric in INTERVALS else decimal(record and record["value"])

    shown = [*languages, "mean"] if len(languages) > 1 else languages
    rows = [[language, *(cell(language, metric) for metric in columns)] for language in shown]
    records = {metric: [by_key.get((code, metric), {}) for code in languages] for metric in columns}
    chances = {metric: [found["chance"] for found in each if "chance" in found] for metric, each in records.items()}
    if any(chances.values()):
        rows.append(["chance", *(decimal(np.mean(found) if found else None) for found in chances.values())])
    return ["language", *columns.values()], rows


def with_interval(record: dict) -> str:
    low, high = record["interval"]
    return f"{record['value']:.1f} ({low:.1f}–{high:.1f})"
