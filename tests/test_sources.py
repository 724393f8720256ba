"""Readers of published corpora: their layouts are read, and an error line names the place of damaged data."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.data.faults import encode_image
from rsmclip.data.sources import READERS, open_source
from rsmclip.data.sources.protocol import SourceRow, read_json_lines
from tests.image_folders import rows_of, write_image

pytestmark = pytest.mark.usefixtures("own_cache")


def karpathy(root: Path, annotation: str, images: list[dict]) -> None:
    """An annotation file in the official layout."""
    entries = []
    for number, image in enumerate(images):
        sentences = [{"raw": raw, "tokens": raw.split()} for raw in image.get("raw", ["a road ."])]
        split = image.get("split", "train")
        entries.append({"filename": image["file"], "split": split, "imgid": number, "sentences": sentences})
    (root / annotation).write_text(json.dumps({"images": entries, "dataset": "made"}), encoding="utf-8")


def test_rsicd_is_read_in_its_own_layout(tmp_path):
    encoded = write_image(tmp_path / "RSICD_images" / "airport_1.jpg")
    write_image(tmp_path / "RSICD_images" / "00623.jpg")
    airport = {"file": "airport_1.jpg", "raw": ["many planes .", " a  runway . "]}
    karpathy(tmp_path, "dataset_rsicd.json", [airport, {"file": "00623.jpg", "split": "test"}])
    first, second = open_source("rsicd", tmp_path).rows()
    assert first == SourceRow(
        image=encoded,
        file="RSICD_images/airport_1.jpg",
        image_id="rsicd/airport_1",
        source="rsicd",
        label="airport",
        split="train",
        captions_en=["many planes .", " a  runway . "],  # raw: translations are looked up by it
        given={},
    )
    assert (second["image_id"], second["label"], second["split"]) == ("rsicd/00623", None, "test")


@pytest.mark.parametrize(
    ("name", "annotation", "image", "label"),
    [
        ("ucm", "dataset.json", "imgs/1.tif", "agricultural"),
        ("sydney", "dataset.json", "imgs/1.tif", None),
        ("rsitmd", "dataset_RSITMD.json", "images/baseballfield_452.tif", "baseballfield"),
    ],
)
def test_the_other_corpora_after_karpathy_are_read_in_their_own_layout(tmp_path, name, annotation, image, label):
    file = tmp_path / image
    write_image(file)
    karpathy(tmp_path, annotation, [{"file": file.name, "split": "val"}])
    (only,) = open_source(name, tmp_path).rows()
    assert (only["image_id"], only["source"]) == (f"{name}/{file.stem}", name)
    assert (only["label"], only["split"]) == (label, "val")
    assert Image.open(io.BytesIO(encode_image(only["image"]))).format == "PNG"


def test_ucm_counts_a_hundred_images_to_a_class(tmp_path):
    reader = open_source("ucm", tmp_path)
    labels = [reader.label_of(f"{number}.tif") for number in (1, 100, 101, 2001, 2100, 2101, 0)]
    assert labels == ["agricultural", "agricultural", "airplane", "tenniscourt", "tenniscourt", None, None]


def nwpu(root: Path, classes: object) -> None:
    (root / "NWPU_images").mkdir(parents=True, exist_ok=True)
    (root / "dataset_nwpu.json").write_text(json.dumps(classes), encoding="utf-8")


def test_nwpu_is_read_in_its_own_layout(tmp_path):
    encoded = write_image(tmp_path / "NWPU_images" / "airplane" / "airplane_001.jpg")
    captions = {"raw": "A .", "raw_1": "B .", "raw_2": "C .", "raw_3": "D .", "raw_4": "E ."}
    airplane = {"filename": "airplane_001.jpg", "imgid": 0, "split": "train", **captions}
    sea_ice = {"filename": "sea_ice_700.jpg", "imgid": 1, "split": "test", **captions}
    nwpu(tmp_path, {"airplane": [airplane], "sea_ice": [sea_ice]})
    first, second = open_source("nwpu", tmp_path).rows()
    assert first == SourceRow(
        image=encoded,
        file="airplane/airplane_001.jpg",
        image_id="nwpu/airplane_001",
        source="nwpu",
        label="airplane",
        split="train",
        captions_en=["A .", "B .", "C .", "D .", "E ."],
        given={},
    )
    assert (second["image"], second["label"], second["split"]) == (None, "sea_ice", "test")


@pytest.mark.parametrize(
    ("classes", "culprit"),
    [
        ([1], "dataset_nwpu.json"),
        ({"airplane": {}}, "'airplane'"),
        ({"airplane": [{"filename": "a.jpg"}]}, r"airplane\[0\].*'split'"),
        ({"airplane": ["a.jpg"]}, r"airplane\[0\]"),
        ({"..": []}, "'..'"),
        ({"a/../..": []}, "'a/../..'"),
    ],
)
def test_a_damaged_nwpu_annotation_is_refused(tmp_path, classes, culprit):
    nwpu(tmp_path, classes)
    with pytest.raises(UserError, match=culprit):
        rows_of(open_source("nwpu", tmp_path))


def test_line_separators_within_a_caption_do_not_end_a_json_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a\u2028b\x85c"}\n\n{"text": "d"}\n', encoding="utf-8")
    assert [entry["text"] for _, entry in read_json_lines(path)] == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"[" * 100_000, '{"text": "forêt"}'.encode("latin-1")])
def test_a_damaged_json_line_is_named(tmp_path, line):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(UserError, match="lines.jsonl, line 2"):
        list(read_json_lines(path))


def test_an_unknown_source_is_refused_beside_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=f"'rsvqa'.*{', '.join(READERS)}"):
        open_source("rsvqa", tmp_path)


@pytest.mark.parametrize("name", ["rsicd", "ucm", "sydney", "nwpu", "rsitmd", "imagefolder"])
def test_every_reader_has_its_name_and_refuses_missing_files(tmp_path, name):
    source = open_source(name, tmp_path)
    assert source.license is None
    assert source.name == tmp_path.name if name == "imagefolder" else "doi:10." in source.citation
    with pytest.raises(UserError, match="annotation file"):
        rows_of(source)
    with pytest.raises(UserError, match=f"{name}.*nothing"):
        open_source(name, tmp_path / "nothing")


def test_a_missing_folder_of_images_is_refused(tmp_path):
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": "airport_1.jpg"}])
    with pytest.raises(UserError, match="RSICD_images"):
        rows_of(open_source("rsicd", tmp_path))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"pictures": []}', "[]", '{"images": 3}'])
def test_a_damaged_annotation_file_is_refused(tmp_path, text):
    (tmp_path / "dataset_rsicd.json").write_text(text)
    with pytest.raises(UserError, match="dataset_rsicd.json"):
        rows_of(open_source("rsicd", tmp_path))


@pytest.mark.parametrize(
    "entry",
    [
        {"filename": "a_1.jpg", "split": "train"},
        {"filename": None, "split": "train", "sentences": []},
        {"filename": "", "split": "train", "sentences": []},
        {"filename": "../a.png", "split": "train", "sentences": []},
        {"filename": "/etc/a.png", "split": "train", "sentences": []},
        {"filename": "b/../../a.png", "split": "train", "sentences": []},
        {"filename": "a.png", "split": "train", "sentences": ["a road ."]},
        "a_1.jpg",
    ],
)
def test_a_malformed_entry_is_named(tmp_path, entry):
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset_rsicd.json").write_text(json.dumps({"images": [entry]}))
    with pytest.raises(UserError, match=r"images\[0\] is malformed"):
        rows_of(open_source("rsicd", tmp_path))


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "images").mkdir()
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": "a_1.jpg"}])
    path = tmp_path / "dataset_rsicd.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(rows_of(open_source("rsicd", tmp_path))) == 1
    (tmp_path / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png", "text": "A."}\n')
    assert len(rows_of(open_source("imagefolder", tmp_path))) == 1
