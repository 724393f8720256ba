"""Readers: every layout is read as published, and every fault is found and told."""

import csv
import io
import json
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from rsmclip.data.faults import encode_image
from rsmclip.data.schema import features
from rsmclip.data.sources import READERS, SourceError, SourceRow, open_source
from rsmclip.data.sources.protocol import read_json_lines


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Tests leave nothing in the user's cache of datasets."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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


@pytest.mark.parametrize(("name", "label"), [("ucm", "agricultural"), ("sydney", None)])
def test_ucm_and_sydney_are_read_in_their_own_layout(tmp_path, name, label):
    write_image(tmp_path / "imgs" / "1.tif")
    karpathy(tmp_path, "dataset.json", [{"file": "1.tif", "split": "val"}])
    (only,) = open_source(name, tmp_path).rows()
    assert (only["image_id"], only["source"], only["label"], only["split"]) == (f"{name}/1", name, label, "val")
    assert Image.open(io.BytesIO(encode_image(only["image"]))).format == "PNG"


def test_ucm_counts_a_hundred_images_to_a_class(tmp_path):
    reader = open_source("ucm", tmp_path)
    labels = [reader.label_of(f"{number}.tif") for number in (1, 100, 101, 2001, 2100, 2101, 0)]
    assert labels == ["agricultural", "agricultural", "airplane", "tenniscourt", "tenniscourt", None, None]


def test_rsitmd_is_read_in_its_own_layout(tmp_path):
    write_image(tmp_path / "images" / "baseballfield_452.tif")
    karpathy(tmp_path, "dataset_RSITMD.json", [{"file": "baseballfield_452.tif", "split": "test"}])
    (only,) = open_source("rsitmd", tmp_path).rows()
    assert (only["image_id"], only["label"], only["split"]) == ("rsitmd/baseballfield_452", "baseballfield", "test")
    assert only["image"] is not None


def nwpu(root: Path, classes: object) -> None:
    (root / "NWPU_images").mkdir(parents=True, exist_ok=True)
    (root / "dataset_nwpu.json").write_text(json.dumps(classes), encoding="utf-8")


def test_nwpu_is_read_in_its_own_layout(tmp_path):
    encoded = write_image(tmp_path / "NWPU_images" / "airplane" / "airplane_001.jpg")
    captions = {"raw": "A .", "raw_1": "B .", "raw_2": "C .", "raw_3": "D .", "raw_4": "E ."}
    nwpu(
        tmp_path,
        {
            "airplane": [{"filename": "airplane_001.jpg", "imgid": 0, "split": "train", **captions}],
            "sea_ice": [{"filename": "sea_ice_700.jpg", "imgid": 1, "split": "test", **captions}],
        },
    )
    first, second = open_source("nwpu", tmp_path).rows()
    assert first == SourceRow(
        image=encoded,
        file="airplane/airplane_001.jpg",
        image_id="nwpu/airplane_001",
        source="nwpu",
        label="airplane",
        split="train",
        captions_en=["A .", "B .", "C .", "D .", "E ."],
    )
    assert (second["image"], second["label"], second["split"]) == (None, "sea_ice", "test")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([1], "the layout of NWPU-Captions"),
        ({"airplane": {}}, "the layout of NWPU-Captions"),
        ({"airplane": [{"filename": "a.jpg"}]}, r"airplane\[0\] is malformed \(no 'split'\)"),
        ({"airplane": ["a.jpg"]}, r"airplane\[0\] is malformed"),
    ],
)
def test_a_damaged_nwpu_annotation_is_refused(tmp_path, classes, message):
    nwpu(tmp_path, classes)
    with pytest.raises(SourceError, match=message):
        list(open_source("nwpu", tmp_path).rows())


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
    known = "hub, imagefolder, nwpu, rsicd, rsitmd, sydney, ucm"
    with pytest.raises(SourceError, match=f"unknown source 'rsvqa'; known are {known}"):
        open_source("rsvqa", tmp_path)


def test_every_reader_says_what_to_cite_or_that_it_does_not_know(tmp_path):
    for name in sorted(set(READERS) - {"hub", "imagefolder"}):
        source = open_source(name, tmp_path)
        assert "doi:10." in source.citation and source.licence is None and source.name == name


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="rsicd: no folder"):
        open_source("rsicd", tmp_path / "nothing")


@pytest.mark.parametrize("name", ["rsicd", "ucm", "sydney", "nwpu", "rsitmd", "imagefolder"])
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


def test_a_file_in_another_encoding_is_refused_by_its_line(tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "forêt"}\n'.encode("latin-1"))
    with pytest.raises(SourceError, match="metadata.jsonl, line 1 is no JSON"):
        list(open_source("imagefolder", tmp_path).rows())


def write_csv(path: Path, header: str, *lines: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *lines])


def test_metadata_in_csv_is_read_with_one_or_several_lines_an_image(tmp_path):
    root = tmp_path / "mine"
    write_csv(
        root / "metadata.csv", "file_name,text,split,label",
        ("a.png", "A, with a comma.", "test", "river"), ("a.png", "B.", "test", "river"), ("b.png", "C.", "", ""),
    )  # fmt: skip
    first, second = open_source("imagefolder", root).rows()
    assert (first["captions_en"], first["split"], first["label"]) == (["A, with a comma.", "B."], "test", "river")
    assert (second["captions_en"], second["split"], second["label"]) == (["C."], "train", None)


def test_captions_in_csv_may_be_a_json_list(tmp_path):
    write_csv(tmp_path / "metadata.csv", "file_name,captions", ("a.png", '["A.", "B."]'))
    (only,) = open_source("imagefolder", tmp_path).rows()
    assert only["captions_en"] == ["A.", "B."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file_name,text\na.png,for\xeat\n", "is no CSV file"),
        (b"file_name,captions\na.png,[A\n", "is no CSV file"),
        (b"name,text\na.png,A\n", "line 2 is malformed \\(no 'file_name'\\)"),
        (b"file_name\na.png\n", "with file_name, and text or captions \\(no 'text'\\)"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, content, message):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        list(open_source("imagefolder", tmp_path).rows())


def test_splits_may_be_folders(tmp_path):
    root = tmp_path / "mine"
    for folder in ("train", "validation", "test"):
        (root / folder).mkdir(parents=True)
        image_folder(root / folder, {"file_name": "a.png", "text": folder})
    encoded = write_image(root / "validation" / "a.png")
    rows = list(open_source("imagefolder", root).rows())
    assert [(row["image_id"], row["split"]) for row in rows] == [
        ("mine/train/a", "train"), ("mine/validation/a", "val"), ("mine/test/a", "test"),
    ]  # fmt: skip
    assert rows[1]["image"] == encoded


IMAGE_AND_TEXT = {"image": ImageFeature(), "text": Value("string")}


def save_dataset(folder: Path, columns: dict, types: dict, splits: tuple[str, ...] = ("train", "validation")) -> Path:
    """A dataset as `save_to_disk` leaves it, with the same rows in each split."""
    rows = Dataset.from_dict(columns, features=Features(types))
    DatasetDict(dict.fromkeys(splits, rows)).save_to_disk(str(folder))
    return folder


def test_any_dataset_with_images_and_captions_is_read(tmp_path):
    encoded = write_image(tmp_path / "a.png")
    folder = save_dataset(
        tmp_path / "theirs",
        {"img": [{"bytes": encoded, "path": None}], "sentences": [["A .", "B ."]], "label": [1]},
        {"img": ImageFeature(), "sentences": List(Value("string")), "label": ClassLabel(names=["beach", "river"])},
    )
    first, second = open_source("hub", str(folder)).rows()
    assert first == SourceRow(
        image=encoded,
        file="theirs/train[0]",
        image_id="theirs/train/0",
        source="theirs",
        label="river",
        split="train",
        captions_en=["A .", "B ."],
    )
    assert (second["image_id"], second["split"]) == ("theirs/val/0", "val")


def test_a_dataset_in_the_current_folder_is_called_after_it(tmp_path, monkeypatch):
    columns = {"image": [{"bytes": write_image(tmp_path / "a.png"), "path": None}], "text": ["A ."]}
    folder = save_dataset(tmp_path / "theirs", columns, IMAGE_AND_TEXT)
    monkeypatch.chdir(folder)
    assert next(iter(open_source("hub", ".").rows()))["image_id"] == "theirs/train/0"


def test_rows_without_an_id_are_numbered(tmp_path):
    image = [{"bytes": write_image(tmp_path / "a.png"), "path": None}] * 2
    theirs = save_dataset(
        tmp_path / "theirs",
        {"image": image, "text": ["A .", "B ."], "image_id": [None, None]},
        {**IMAGE_AND_TEXT, "image_id": Value("string")},
    )
    columns = {"image_id": [None, "ours/7"], "source": [None, "ours"], "label": [None, None]}
    captions = [{"en": ["A ."]}, {"en": ["B ."]}]
    ours = save_dataset(tmp_path / "ours", {"image": image, **columns, "captions": captions}, features(["en"]))
    rows = list(open_source("hub", str(theirs)).rows())[:2]
    assert [row["image_id"] for row in rows] == ["theirs/train/0", "theirs/train/1"]
    rows = list(open_source("hub", str(ours)).rows())[:2]
    assert [(row["image_id"], row["source"]) for row in rows] == [("ours/train/0", "ours"), ("ours/7", "ours")]


def test_a_dataset_of_image_files_is_read_from_them(tmp_path):
    encoded = write_image(tmp_path / "a.png")
    columns = {"image": [str(tmp_path / "a.png")], "filename": ["a.png"], "text": ["A ."]}
    types = {"image": ImageFeature(), "filename": Value("string"), "text": Value("string")}
    rows = Dataset.from_dict(columns, features=Features(types))
    rows.save_to_disk(str(tmp_path / "one"))  # a single split is train
    (only,) = open_source("hub", str(tmp_path / "one")).rows()
    assert (only["image"], only["image_id"], only["captions_en"]) == (encoded, "one/train/a", ["A ."])


def test_columns_of_a_dataset_can_be_told(tmp_path):
    columns = {"before": [None], "after": [None], "caption": ["A ."], "long": ["B ."], "key": ["x/7.tif"]}
    types = {"before": ImageFeature(), "after": ImageFeature()} | dict.fromkeys(
        ("caption", "long", "key"), Value("string")
    )
    folder = save_dataset(tmp_path / "theirs", columns, types, ("test",))
    with pytest.raises(SourceError, match="not one column that must be the image among .*say hub=.*,image=COLUMN"):
        list(open_source("hub", str(folder)).rows())
    (only,) = open_source("hub", f"{folder},image=after,captions=long,id=key").rows()
    assert (only["captions_en"], only["image_id"], only["image"]) == (["B ."], "theirs/test/x/7", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",image=none", "has no column 'none' among image, text: say hub=.*,image=COLUMN"),
        (",captions=image", "column 'image' holds no captions"),
        (",colour=x", "unknown option 'colour'; known are image, captions, label, id, config, revision"),
    ],
)
def test_wrong_options_of_a_dataset_are_told(tmp_path, options, message):
    types = {"image": ImageFeature(), "text": Value("string")}
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, types)
    with pytest.raises(SourceError, match=message):
        list(open_source("hub", f"{folder}{options}").rows())


def test_a_dataset_without_captions_or_not_there_is_refused(tmp_path):
    folder = save_dataset(
        tmp_path / "theirs", {"image": [None], "n": [1]}, {"image": ImageFeature(), "n": Value("int64")}
    )
    with pytest.raises(SourceError, match="not one column that must be the captions among image, n"):
        list(open_source("hub", str(folder)).rows())
    with pytest.raises(SourceError, match="hub: no folder"):
        list(open_source("hub", str(tmp_path / "nothing")).rows())


def test_captions_of_several_lines_of_an_image_are_all_kept(tmp_path):
    write_csv(tmp_path / "metadata.csv", "file_name,captions,text", ("a.png", '["A.", "B."]', ""), ("a.png", "", "C."))
    (only,) = open_source("imagefolder", tmp_path).rows()
    assert only["captions_en"] == ["A.", "B.", "C."]


@pytest.mark.parametrize("captions", [{"a": 1}, 5])
def test_captions_that_are_no_list_are_refused(tmp_path, captions):
    image_folder(tmp_path, {"file_name": "a.png", "captions": captions})
    with pytest.raises(SourceError, match=r"line 1 is malformed \(captions .* are no list\)"):
        list(open_source("imagefolder", tmp_path).rows())


@pytest.mark.parametrize("file_name", ["../a.png", "/etc/a.png", "b/../../a.png"])
def test_images_outside_the_corpus_are_refused(tmp_path, file_name):
    (tmp_path / "images").mkdir()
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": file_name}])
    with pytest.raises(SourceError, match="lies outside the folder of images"):
        list(open_source("rsicd", tmp_path).rows())


@pytest.mark.parametrize("scene", ["..", "a/../..", "/etc"])
def test_classes_outside_the_corpus_are_refused(tmp_path, scene):
    nwpu(tmp_path, {scene: [{"filename": "a.png", "split": "train", "raw": "A ."}]})
    with pytest.raises(SourceError, match="lies outside the folder of images"):
        list(open_source("nwpu", tmp_path).rows())


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "images").mkdir()
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": "a_1.jpg"}])
    path = tmp_path / "dataset_rsicd.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(list(open_source("rsicd", tmp_path).rows())) == 1
    (tmp_path / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png", "text": "A."}\n')
    assert len(list(open_source("imagefolder", tmp_path).rows())) == 1


def test_json_nested_without_end_is_refused(tmp_path):
    (tmp_path / "dataset_rsicd.json").write_text("[" * 100_000)
    with pytest.raises(SourceError, match="is no annotation file"):
        list(open_source("rsicd", tmp_path).rows())


def test_the_licence_of_a_dataset_is_that_of_its_card(tmp_path):
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, IMAGE_AND_TEXT)
    assert open_source("hub", str(folder)).licence is None
    for card, licence in (("license: mit", "mit"), ("license: [mit, cc0-1.0]", "mit, cc0-1.0"), ("license: [", None)):
        (folder / "README.md").write_text(f"---\n{card}\n---\n")
        assert open_source("hub", str(folder)).licence == licence


def test_labels_that_are_not_known_are_none_and_ids_keep_their_points(tmp_path):
    columns = {"image": [None] * 2, "text": ["A ."] * 2, "label": [-1, 0], "id": ["tile_0.1", "tile_0.2.TIF"]}
    types = IMAGE_AND_TEXT | {"label": ClassLabel(names=["beach"]), "id": Value("string")}
    rows = list(open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("test",)))).rows())
    assert [row["label"] for row in rows] == [None, "beach"]
    assert [row["image_id"] for row in rows] == ["theirs/test/tile_0.1", "theirs/test/tile_0.2"]


def test_a_column_without_images_is_refused(tmp_path):
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, IMAGE_AND_TEXT)
    with pytest.raises(SourceError, match="column 'text' holds no images"):
        list(open_source("hub", f"{folder},image=text").rows())


@pytest.mark.parametrize("name", ["dataset_dict.json", "state.json"])
def test_a_damaged_dataset_is_told_in_one_line(tmp_path, name):
    (tmp_path / name).write_text("[]")
    with pytest.raises(SourceError, match="^hub: [^\n]+$"):
        list(open_source("hub", str(tmp_path)).rows())
