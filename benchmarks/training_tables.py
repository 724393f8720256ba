"""Markdown tables of the training benchmark: a table for each part, below the command that measured it."""

from collections.abc import Callable, Mapping, Sequence

from rsmclip.core.errors import UserError


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table with text in its first column and numbers in the others."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def spread(side: Mapping) -> str:
    return f"{min(side['turns']):.2f} – {max(side['turns']):.2f}"


def rate_row(name: str, side: Mapping, *more: object) -> list[str]:
    return [name, f"{side['pairs_per_second']:.2f}", spread(side), f"{side['waited_percent']:.1f}", *map(str, more)]


RATES = ("pairs/s", "slowest – fastest turn", "data wait, %")


def compare(found: Mapping) -> str:
    names = {"ours": "RS-M-CLIP", "openclip": "OpenCLIP"}
    sides = [side for side in names if side in found]
    rows = [rate_row(names[side], found[side], f"{found[side]['parameters'] / 1e6:.1f}") for side in sides]
    text = table(["contrastive loss only", *RATES, "parameters, M"], rows)
    if "ratio" in found:
        text += "\n\n" + ratio_line("RS-M-CLIP / OpenCLIP", found["ratio"])
    return text


def ratio_line(name: str, ratio: Mapping) -> str:
    spread = f"{ratio['smallest']:.2f} – {ratio['largest']:.2f}"
    return f"{name}: **{ratio['median']:.2f}** (median of the rounds; {spread})"


def views(found: Mapping) -> str:
    names = {"clip_only": "contrastive loss only, 1 view", "two_and_eight_views": "2 + 8 views and teacher"}
    rows = [rate_row(text, found[side], f"{found[side]['gflop_per_pair']:.1f}") for side, text in names.items()]
    lines = [
        ratio_line("measured ratio", found["ratio"]),
        f"predicted by the count of operations: **{found['predicted_ratio']:.3f}**; "
        f"measured / predicted: **{found['measured_over_predicted']:.2f}**",
    ]
    return table(["step", *RATES, "GFLOP a pair"], rows) + "\n\n" + "  \n".join(lines)


def used(found: Mapping) -> str:
    return (
        f"{found['gflop_per_pair']:.1f} GFLOP a pair; {found['achieved_tflops']:.3g} TFLOP/s, "
        f"{found['utilization_percent']:.1f} % of {found['peak_tflops']:.3g} ({found['peak']})"
    )


def stages(found: Mapping) -> str:
    total = sum(found["stages"].values())
    rows = [[name, f"{1000 * value:.1f}", f"{100 * value / total:.1f}"] for name, value in found["stages"].items()]
    rows.append(["sum, each stage waited for", f"{1000 * total:.1f}", "100.0"])
    rows.append(["a step without clocks", f"{1000 * found['seconds_per_step']:.1f}", ""])
    return table(["stage", "ms a step", "%"], rows) + "\n\n" + used(found)


def pipeline(found: Mapping) -> str:
    rows = [rate_row(name, side) for name, side in found["demo"].items()]
    text = f"The input pipeline alone, one core: **{found['images_per_second_and_core']:.0f} images/s**"
    return text + "\n\n" + table(["training of the demo", *RATES], rows)


def memory(found: Mapping) -> str:
    rows = [[f"{peak['batch_size']}, {peak['chunks']}", gibibytes(peak["peak_bytes"])] for peak in found["peaks"]]
    return table(["batch size, gradient_accumulation_chunks", "peak, GiB"], rows)


def gibibytes(size: int | None) -> str:
    return f"{size / 2**30:.1f}" if size else "out of memory"


def throughput(found: Mapping) -> str:
    rows = []
    for name in ("compile off", "compile on"):
        if side := found.get(name):
            more = (f"{side['utilization_percent']:.1f}", f"{side['hours']:.1f}", f"{side['start_seconds']:.0f}")
            rows.append(rate_row(name, side, *more))
    more = ("utilization, %", "hours for 100 epochs of 50,000 images", "warm-up, s")
    text = table(["2 + 8 views and teacher", *RATES, *more], rows) + "\n\n" + used(found)
    if "synchronizations" in found:
        waits = found["synchronizations"]
        places = ", ".join(f"{place} ({count})" for place, count in waits["places"].items())
        text += f"  \nhost waits for the GPU inside a step: **{waits['per_step']:g}** {places}".rstrip()
    return text


TABLES: dict[str, Callable[[Mapping], str]] = {
    part.__name__: part for part in (compare, views, stages, pipeline, memory, throughput)
}


def as_markdown(results: Mapping[str, Mapping]) -> str:
    """
    Format all parts of a results file.

    Args:
        results (`Mapping[str, Mapping]`): Results that `python -m rsmclip.benchmarks.training` wrote, by part.

    Raises:
        [`UserError`]: The results have an unknown part.
    """
    if unknown := [part for part in results if part not in TABLES]:
        raise UserError(f"unknown part {unknown[0]!r} in the results of the training benchmark")
    sections = []
    for part, record in results.items():
        machine = record["machine"] + (f", {record['accelerator']}" if "accelerator" in record else "")
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        settings = record["settings"]
        threads = f", {settings['threads']} threads" if settings["threads"] else ""
        setup = f"batch {settings['batch_size']}, precision {settings['precision']}, {settings['workers']} workers"
        sections.append(
            f"### {part}\n\n```\n{record['command']}\n```\n\n"
            f"{record['date']}; {machine}; {setup}{threads}; {versions}\n\n{TABLES[part](record['results'])}"
        )
    return "\n\n".join(sections)
