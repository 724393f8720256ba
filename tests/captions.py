"""Captions as in the corpora, in English with right translations into the nine other languages."""

import json
from pathlib import Path

LINES = Path(__file__).with_name("captions_in_ten_languages.jsonl").read_text(encoding="utf-8").splitlines()
CAPTIONS: list[dict[str, str]] = [json.loads(line) for line in LINES]
