"""Readers: every layout is read as published, and every fault is found and told."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from rsmclip.data.sources import (
    SourceError,
    SourceRow,
    encode_image,
    fault_table,
    find_fault,
    normalise_caption,
    open_source,
    read_json_lines,
)


def write_image(path: Path, colour: tuple[int, int, int] = (10, 200, 30)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), colour).save(path)
    return path.read_bytes()


def karpathy(root: Path, annotation: str, images: list[dict]) -> None:
    """An annotation file in the official layout."""
    entries = [
        {"filename": image["file"], "split": image.get("split", "train"), "imgid": number,
         "sentences": [{"raw": raw, "tokens": raw.split()} for raw in image.get("raw", ["a road ."])]}
        for number, image in enumerate(images)
    ]  # fmt: skip
    (root / annotation).write_text(json.dumps({"images": entries, "dataset": "made"}), encoding="utf-8")


def image_folder(root: Path, *lines: dict) -> None:
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def row(**changes) -> SourceRow:
    usable = SourceRow(
        image=b"bytes", file="a.jpg", image_id="made/a", source="made", label=None, split="train", captions_en=["A."]
    )
    return usable | changes


def test_rsicd_is_read_in_its_own_layout(tmp_path):
    encoded = write_image(tmp_path / "RSICD_images" / "airport_1.jpg")
    write_image(tmp_path / "RSICD_images" / "00623.jpg")
    images = [
        {"file": "airport_1.jpg", "raw": ["many planes .", " a  runway . "]},
        {"file": "00623.jpg", "split": "test"},
    ]
    karpathy(tmp_path, "dataset_rsicd.json", images)
    first, second = open_source("rsicd", tmp_path).rows()
    assert first == SourceRow(
        image=encoded,
        file="RSICD_images/airport_1.jpg",
        image_id="rsicd/airport_1",
        source="rsicd",
        label="airport",
        split="train",
        captions_en=["many planes .", " a  runway . "],  # raw: translations are looked up by it
    )
    assert (second["image_id"], second["label"], second["split"]) == ("rsicd/00623", None, "test")


@pytest.mark.parametrize("name", ["ucm", "sydney"])
def test_ucm_and_sydney_are_read_in_their_own_layout(tmp_path, name):
    write_image(tmp_path / "imgs" / "1.tif")
    karpathy(tmp_path, "dataset.json", [{"file": "1.tif", "split": "val"}])
    (only,) = open_source(name, tmp_path).rows()
    assert (only["image_id"], only["source"], only["label"], only["split"]) == (f"{name}/1", name, None, "val")
    assert Image.open(io.BytesIO(encode_image(only["image"]))).format == "PNG"


def test_an_image_folder_is_read_with_captions_or_text(tmp_path):
    root = tmp_path / "mine"
    encoded = write_image(root / "sub" / "a.png")
    image_folder(
        root,
        {"file_name": "sub/a.png", "captions": ["A.", "B."], "split": "test", "label": 3},
        {"file_name": "gone.png", "text": "C."},
    )
    first, second = open_source("imagefolder", root).rows()
    assert first["image"] == encoded and first["captions_en"] == ["A.", "B."]
    assert (first["image_id"], first["source"], first["label"]) == ("mine/sub/a", "mine", "3")
    assert (second["image"], second["captions_en"], second["split"]) == (None, ["C."], "train")


def test_line_separators_within_a_caption_do_not_end_a_json_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a\u2028b\x85c"}\n\n{"text": "d"}\n', encoding="utf-8")
    assert [entry["text"] for _, entry in read_json_lines(path)] == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize(("line", "message"), [("{", "line 2 is no JSON"), ("[1]", "line 2 is no JSON object")])
def test_a_damaged_json_line_is_named(tmp_path, line, message):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        list(read_json_lines(path))


def test_an_unknown_source_is_refused_beside_the_known_ones(tmp_path):
    with pytest.raises(SourceError, match="unknown source 'rsvqa'; known are rsicd, ucm, sydney, imagefolder"):
        open_source("rsvqa", tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="rsicd: no folder"):
        open_source("rsicd", tmp_path / "nothing")


@pytest.mark.parametrize("name", ["rsicd", "ucm", "sydney", "imagefolder"])
def test_a_missing_annotation_file_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match="no annotation file"):
        list(open_source(name, tmp_path).rows())


def test_a_missing_folder_of_images_is_refused(tmp_path):
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": "airport_1.jpg"}])
    with pytest.raises(SourceError, match="no folder RSICD_images or images"):
        list(open_source("rsicd", tmp_path).rows())


@pytest.mark.parametrize("text", ["{", '{"pictures": []}', "[]", '{"images": 3}'])
def test_a_damaged_annotation_file_is_refused(tmp_path, text):
    (tmp_path / "dataset_rsicd.json").write_text(text)
    with pytest.raises(SourceError, match="dataset_rsicd.json is no annotation file"):
        list(open_source("rsicd", tmp_path).rows())


@pytest.mark.parametrize("entry", [{"filename": "a_1.jpg", "split": "train"}, {"filename": None}, "a_1.jpg"])
def test_a_malformed_entry_is_named(tmp_path, entry):
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset_rsicd.json").write_text(json.dumps({"images": [entry]}))
    with pytest.raises(SourceError, match=r"images\[0\] is malformed"):
        list(open_source("rsicd", tmp_path).rows())


@pytest.mark.parametrize("entry", [{"file_name": "a.png"}, {"text": "A."}, {"file_name": 3, "text": "A."}])
def test_a_malformed_metadata_line_is_named(tmp_path, entry):
    image_folder(tmp_path, entry)
    with pytest.raises(SourceError, match="line 1 is malformed"):
        list(open_source("imagefolder", tmp_path).rows())


def test_a_usable_row_has_no_fault():
    assert find_fault(row(), set()) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_id": "made/seen"}, "duplicate id"),
        ({"split": "valid"}, "unknown split"),
        ({"captions_en": []}, "no captions"),
        ({"captions_en": ["A.", "  "]}, "empty caption"),
        ({"captions_en": [3]}, "empty caption"),
        ({"image": None}, "image missing"),
    ],
)
def test_every_fault_of_a_row_is_found(changes, problem):
    fault = find_fault(row(**changes), {"made/seen"})
    assert fault.problem == problem and fault.image_id == row(**changes)["image_id"]


def test_the_table_counts_all_faults_and_lists_the_first():
    faults = [find_fault(row(image_id=f"made/{n}", image=None), set()) for n in range(30)]
    faults.append(find_fault(row(split="valid"), set()))
    lines = fault_table(faults).splitlines()
    assert lines[0] == "31 unusable rows (image missing: 30, unknown split: 1)"
    assert lines[1].split() == ["problem", "image", "where"] and lines[2].split()[-2:] == ["made/0", "a.jpg"]
    assert lines[-1].strip() == "… and 11 more" and len(lines) == 1 + 1 + 20 + 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_jpeg_and_png_are_kept_byte_for_byte(tmp_path, suffix):
    encoded = write_image(tmp_path / f"a.{suffix}")
    assert encode_image(encoded) == encoded


def test_a_tiff_becomes_a_png_of_the_same_pixels(tmp_path):
    image = Image.effect_noise((16, 12), 60).convert("RGB")
    image.save(tmp_path / "a.tif")
    stored = Image.open(io.BytesIO(encode_image((tmp_path / "a.tif").read_bytes())))
    assert stored.format == "PNG" and stored.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_more_than_8_bits_a_channel_are_refused(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "TIFF")
    with pytest.raises(SourceError, match="not of 8 bits a channel"):
        encode_image(buffer.getvalue())


def test_a_file_in_another_encoding_is_refused_by_its_line(tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "forêt"}\n'.encode("latin-1"))
    with pytest.raises(SourceError, match="metadata.jsonl, line 1 is no JSON"):
        list(open_source("imagefolder", tmp_path).rows())


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_half_an_image_is_undecodable(tmp_path, suffix):
    Image.effect_noise((64, 64), 60).save(tmp_path / f"a.{suffix}")
    encoded = (tmp_path / f"a.{suffix}").read_bytes()
    for damaged in (encoded[: len(encoded) // 2], b"", b"no image"):
        with pytest.raises(SourceError, match="undecodable"):
            encode_image(damaged)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("many planes are parked .", "many planes are parked."),
        ("  a  road\tand\na field , seen from above .", "a road and a field, seen from above."),
        ("a well - built school", "a well - built school"),
        ("about 3.5 m", "about 3.5 m"),
    ],
)
def test_captions_are_normalised(raw, clean):
    assert normalise_caption(raw) == clean
