"""Write the test images of the demo corpus into outputs/pictures, with their English captions in metadata.csv.

The other examples read this folder as they would read one of yours.
"""

import csv
from pathlib import Path

from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import load_corpus

FOLDER = Path("outputs/pictures")


def demo_pictures() -> Path:
    """Return the folder. It is written if it does not exist."""
    if not FOLDER.is_dir():
        FOLDER.mkdir(parents=True)
        with (FOLDER / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(["file_name", "text"])
            for number, row in enumerate(load_corpus(cached_demo())["test"]):
                name = f"{row['label']}_{number}.jpg"
                (FOLDER / name).write_bytes(row["image"]["bytes"])
                lines.writerows([name, caption] for caption in row["captions"]["en"])
    return FOLDER


if __name__ == "__main__":
    print(demo_pictures())
