"""Readers: the published layouts are read, and an error line names the place of damaged data."""

import csv
import io
import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.data.faults import encode_image
from rsmclip.data.schema import features
from rsmclip.data.sources import READERS, open_source
from rsmclip.data.sources.protocol import SourceRow, read_json_lines

pytestmark = pytest.mark.usefixtures("own_cache")


def write_image(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (10, 200, 30)).save(path)
    return path.read_bytes()


def karpathy(root: Path, annotation: str, images: list[dict]) -> None:
    """An annotation file in the official layout."""
    entries = []
    for number, image in enumerate(images):
        sentences = [{"raw": raw, "tokens": raw.split()} for raw in image.get("raw", ["a road ."])]
        split = image.get("split", "train")
        entries.append({"filename": image["file"], "split": split, "imgid": number, "sentences": sentences})
    (root / annotation).write_text(json.dumps({"images": entries, "dataset": "made"}), encoding="utf-8")


def image_folder(root: Path, *lines: dict) -> None:
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


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
        list(source.rows())
    with pytest.raises(UserError, match=f"{name}.*nothing"):
        open_source(name, tmp_path / "nothing")


def test_a_missing_folder_of_images_is_refused(tmp_path):
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": "airport_1.jpg"}])
    with pytest.raises(UserError, match="RSICD_images"):
        list(open_source("rsicd", tmp_path).rows())


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"pictures": []}', "[]", '{"images": 3}'])
def test_a_damaged_annotation_file_is_refused(tmp_path, text):
    (tmp_path / "dataset_rsicd.json").write_text(text)
    with pytest.raises(UserError, match="dataset_rsicd.json"):
        list(open_source("rsicd", tmp_path).rows())


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
        list(open_source("rsicd", tmp_path).rows())


@pytest.mark.parametrize(
    ("entry", "culprit"),
    [
        ({"file_name": "a.png"}, "'text'"),
        ({"text": "A."}, "'file_name'"),
        ({"file_name": 3, "text": "A."}, "'file_name'"),
        ({"file_name": "a.png", "captions": {"a": 1}}, "'captions'"),
        ({"file_name": "a.png", "captions": 5}, "'captions'"),
    ],
)
def test_a_malformed_metadata_line_is_named(tmp_path, entry, culprit):
    image_folder(tmp_path, entry)
    with pytest.raises(UserError, match=f"line 1.*{culprit}"):
        list(open_source("imagefolder", tmp_path).rows())


def write_csv(path: Path, header: str, *lines: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *lines])


def test_metadata_in_csv_is_read_with_one_or_several_lines_an_image(tmp_path):
    root = tmp_path / "mine"
    lines = [("a.png", "A, with a comma.", "test", "river"), ("a.png", "B.", "test", "river"), ("b.png", "C.", "", "")]
    write_csv(root / "metadata.csv", "file_name,text,split,label", *lines)
    first, second = open_source("imagefolder", root).rows()
    assert (first["captions_en"], first["split"], first["label"]) == (["A, with a comma.", "B."], "test", "river")
    assert (second["captions_en"], second["split"], second["label"]) == (["C."], "train", None)


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (b"file_name,text\na.png,for\xeat\n", "metadata.csv"),
        (b"name,text\na.png,A\n", "line 2.*'file_name'"),
        (b"file_name\na.png\n", "line 2.*'text'"),
        (b"file_name,text\na.png,A river, and a bridge.\n", "metadata.csv, line 2"),
        (b"file_name,text\na.png,A.\nb.png\n", "metadata.csv, line 3"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, content, culprit):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=culprit):
        list(open_source("imagefolder", tmp_path).rows())


def test_files_of_an_image_folder_that_are_not_used_are_noted_once(tmp_path, capsys):
    for name in ("a.png", "b.png", "train/c.jpg", "d.txt", "._e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    image_folder(tmp_path, {"file_name": "./a.png", "text": "A."}, {"file_name": "train/c.jpg", "text": "C."})
    write_csv(tmp_path / "metadata.csv", "file_name,text", ("a.png", "A."), ("b.png", "B."))
    assert len(list(open_source("imagefolder", tmp_path).rows())) == 2
    told = capsys.readouterr().err
    assert "metadata.csv" in told and "1 (first" in told and "b.png" in told and told.count("\n") == 1
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "b.png").unlink()
    assert len(list(open_source("imagefolder", tmp_path).rows())) == 2 and capsys.readouterr().err == ""


def test_splits_may_be_folders(tmp_path):
    root = tmp_path / "mine"
    for folder in ("train", "validation", "test"):
        (root / folder).mkdir(parents=True)
        image_folder(root / folder, {"file_name": "a.png", "text": folder})
    encoded = write_image(root / "validation" / "a.png")
    rows = list(open_source("imagefolder", root).rows())
    assert [row["image_id"] for row in rows] == ["mine/train/a", "mine/validation/a", "mine/test/a"]
    assert [row["split"] for row in rows] == ["train", "val", "test"]
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


@pytest.mark.parametrize("path", ["string", "null"])
def test_images_may_be_structs_of_bytes_and_path(tmp_path, path):
    encoded = write_image(tmp_path / "a.png")
    columns = {"image": [{"bytes": encoded, "path": None}], "text": ["A ."]}
    types = IMAGE_AND_TEXT | {"image": {"bytes": Value("binary"), "path": Value(path)}}
    (only,) = open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("train",)))).rows()
    assert (only["image"], only["captions_en"]) == (encoded, ["A ."])


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


def test_columns_of_a_dataset_can_be_named(tmp_path):
    columns = {"before": [None], "after": [None], "caption": ["A ."], "long": ["B ."], "key": ["x/7.tif"]}
    texts = dict.fromkeys(("caption", "long", "key"), Value("string"))
    types = {"before": ImageFeature(), "after": ImageFeature()} | texts
    folder = save_dataset(tmp_path / "theirs", columns, types, ("test",))
    with pytest.raises(UserError, match=",image=COLUMN.*before, after"):
        list(open_source("hub", str(folder)).rows())
    (only,) = open_source("hub", f"{folder},image=after,captions=long,id=key").rows()
    assert (only["captions_en"], only["image_id"], only["image"]) == (["B ."], "theirs/test/x/7", None)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (",image=none", "image=COLUMN"),
        (",image=text", "image=COLUMN"),
        (",captions=image", "captions=COLUMN"),
        (",size=x", "'size'.*image, captions, label, id, config, revision"),
    ],
)
def test_wrong_options_of_a_dataset_are_refused(tmp_path, options, culprit):
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, IMAGE_AND_TEXT)
    with pytest.raises(UserError, match=culprit):
        list(open_source("hub", f"{folder}{options}").rows())


def test_a_dataset_without_captions_or_not_there_is_refused(tmp_path):
    types = {"image": ImageFeature(), "n": Value("int64")}
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "n": [1]}, types)
    with pytest.raises(UserError, match="captions=COLUMN"):
        list(open_source("hub", str(folder)).rows())
    with pytest.raises(UserError, match="nothing"):
        list(open_source("hub", str(tmp_path / "nothing")).rows())


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "images").mkdir()
    karpathy(tmp_path, "dataset_rsicd.json", [{"file": "a_1.jpg"}])
    path = tmp_path / "dataset_rsicd.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(list(open_source("rsicd", tmp_path).rows())) == 1
    (tmp_path / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png", "text": "A."}\n')
    assert len(list(open_source("imagefolder", tmp_path).rows())) == 1


def test_the_license_of_a_dataset_is_that_of_its_card(tmp_path):
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, IMAGE_AND_TEXT)
    assert open_source("hub", str(folder)).license is None
    for card, license in (("license: mit", "mit"), ("license: [mit, cc0-1.0]", "mit, cc0-1.0"), ("license: [", None)):
        (folder / "README.md").write_text(f"---\n{card}\n---\n")
        assert open_source("hub", str(folder)).license == license


def test_labels_that_are_not_known_are_none_and_ids_keep_their_points(tmp_path):
    columns = {"image": [None] * 2, "text": ["A ."] * 2, "label": [-1, 0], "id": ["tile_0.1", "tile_0.2.TIF"]}
    types = IMAGE_AND_TEXT | {"label": ClassLabel(names=["beach"]), "id": Value("string")}
    rows = list(open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("test",)))).rows())
    assert [row["label"] for row in rows] == [None, "beach"]
    assert [row["image_id"] for row in rows] == ["theirs/test/tile_0.1", "theirs/test/tile_0.2"]
