"""The layout after Karpathy's split of COCO, in which four of the five corpora are published: one JSON file
`{"images": [{"filename", "split", "sentences": [{"raw", "tokens"}]}]}` and one folder of images."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rsmclip.data.sources.protocol import SourceError, SourceRow, describe, existing_folder, first_existing, make_row


class KarpathySource:
    """
    A corpus in this layout.

    Args:
        place (`str`): Folder of the annotation file.
    """

    name: str
    licence: str | None
    citation: str
    annotations: tuple[str, ...]  # names under which the annotation file is known
    images: tuple[str, ...]  # and the folder of images

    def __init__(self, place: str):
        self.root = existing_folder(self.name, place)

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the annotation file."""
        path = first_existing(self.name, "annotation file", self.root, self.annotations)
        entries = read_annotation(path)
        folder = first_existing(self.name, "folder", self.root, self.images)
        for number, entry in enumerate(entries):
            try:
                file_name, split = entry["filename"], entry["split"]
                captions = [sentence["raw"] for sentence in entry["sentences"]]
                yield make_row(self.name, folder, file_name, split, captions, self.label_of(file_name))
            except (KeyError, TypeError, ValueError) as error:
                raise SourceError(f"{path}: images[{number}] is malformed ({describe(error)})") from None

    def label_of(self, file_name: str) -> str | None:
        """The scene class in a file name: `airport` of `airport_1.jpg`, none of `00623.jpg`."""
        scene = re.fullmatch(r"([A-Za-z]+)_\d+", PurePosixPath(file_name).stem)
        return scene[1] if scene else None


def read_annotation(path: Path) -> list[dict]:
    """The list of images of an annotation file."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8-sig"))["images"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{path} is no annotation file after Karpathy ({describe(error)})") from None
