"""Run the code of a card, one snippet after the other. `hub/snippets.py` starts this process.

It reads a JSON list of codes, and prints the output of each code as a line of JSON. The process imitates the machine
of a reader: it cannot import this repository. It has no network, so the files of a model come from its folder.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import huggingface_hub

sys.modules["rsmclip"] = None  # makes an import of the package fail
download = huggingface_hub.hf_hub_download


def local_file(repo_id: str, filename: str, **options: object) -> str:
    return str(Path(repo_id) / filename) if Path(repo_id).is_dir() else download(repo_id, filename, **options)


huggingface_hub.hf_hub_download = local_file
for code in json.load(sys.stdin):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})
    print(json.dumps(printed.getvalue().rstrip()), flush=True)
