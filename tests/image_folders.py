"""Small image folders with metadata, and shards of images, for tests of the readers."""

import csv
import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.data.sources.protocol import Source, SourceRow


def write_image(path: Path, color: tuple[int, int, int] = (10, 200, 30)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), color).save(path)
    return path.read_bytes()


def image_folder(root: Path, *lines: dict) -> None:
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def rows_of(source: Source) -> list[SourceRow]:
    """Return all rows of a source. Raises the first error that stands in place of a row."""
    rows = list(source.rows())
    for row in rows:
        if isinstance(row, UserError):
            raise row
    return rows


def write_csv(path: Path, header: str, *lines: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *lines])


def write_shard(path: Path, files: dict[str, object], mode: str = "w") -> Path:
    """Write a tar file. Values are bytes, text or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, value in files.items():
            text = value if isinstance(value, str | bytes) else json.dumps(value)
            content = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
