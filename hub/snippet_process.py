"""Runs the code of a card, one snippet after the other, as `hub/snippets.py` starts it: a list of codes comes in as
JSON, a list of what they did goes out, up to the first that fails.

It stands for a reader's machine: this repository cannot be imported, and the Hub cannot be reached, so a repository's
file is a file of the folder that stands in its place.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import huggingface_hub

sys.modules["rsmclip"] = None  # importing the package is an error from here on
OPTIONAL = "sentence_transformers"
download = huggingface_hub.hf_hub_download


def file_of(repo_id: str, filename: str, **options: object) -> str:
    """The path of a file in a folder, or what `hf_hub_download` gives for a repository."""
    return str(Path(repo_id) / filename) if Path(repo_id).is_dir() else download(repo_id, filename, **options)


def run(code: str) -> dict:
    """What a code printed, the error it ended with, or which optional package it misses."""
    outcome = {"output": None, "error": None, "missing": None}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})
        outcome["output"] = printed.getvalue().rstrip()
    except Exception as error:  # whatever it is, it is told and ends the making of the card
        if isinstance(error, ModuleNotFoundError) and error.name == OPTIONAL:
            outcome["missing"] = OPTIONAL.replace("_", "-")
        else:
            outcome["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return outcome


huggingface_hub.hf_hub_download = file_of
outcomes = []
for code in json.load(sys.stdin):
    outcomes.append(run(code))
    if outcomes[-1]["error"]:
        break
print(json.dumps(outcomes))
