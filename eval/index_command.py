"""The command `rsmclip index`."""

import argparse
import sys

from datasets import disable_progress_bars
from transformers.utils import logging as transformers_logging

from rsmclip.core.command_line import printable
from rsmclip.eval.build_index import IndexReport, build_index
from rsmclip.eval.embed import processes


def run(arguments: argparse.Namespace) -> None:
    """Build or update an index. Images that cannot be used are named on standard error."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        report = build_index(**vars(arguments))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("run the same rsmclip index command again, which continues it") from stop
    if processes().is_main_process:
        print_left_out(report.left_out)
        print(f"{arguments.output}: {summary(report)}")


def print_left_out(left_out: dict[str, str]) -> None:
    """Print a line to standard error for each image that is left out, with its reason."""
    for path, reason in left_out.items():
        print(f"left out: {printable(path)}: {printable(reason)}", file=sys.stderr)


def summary(report: IndexReport) -> str:
    """Return the numbers of a report in one line."""
    images = report.new + report.changed + report.unchanged
    parts = [f"{report.new:,} new", f"{report.changed:,} changed", f"{report.unchanged:,} unchanged"]
    parts += [f"{report.dropped:,} dropped"] if report.dropped else []
    line = f"{counted(images, 'image')} ({', '.join(parts)})"
    line += f" in {counted(report.entries, 'tile')}" if report.entries > images else ""
    line += f"; {len(report.left_out):,} left out" if report.left_out else ""
    return line + (f"; {counted(report.others, 'other file')}" if report.others else "")


def counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}" + ("s" if number != 1 else "")
