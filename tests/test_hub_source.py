"""Hugging Face datasets: columns are found by type and name, and the rows of an image are joined."""

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature

from rsmclip.core.errors import UserError
from rsmclip.data.schema import features
from rsmclip.data.sources import open_source
from rsmclip.data.sources.protocol import SourceRow
from tests.image_folders import rows_of, write_image

pytestmark = pytest.mark.usefixtures("own_cache")

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
        given={},
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
    image = [{"bytes": write_image(tmp_path / "a.png", (0, 0, shade)), "path": None} for shade in (1, 2)]
    theirs = save_dataset(
        tmp_path / "theirs",
        {"image": image, "text": ["A .", "B ."], "image_id": [None, None]},
        {**IMAGE_AND_TEXT, "image_id": Value("string")},
    )
    columns = {"image_id": [None, "ours/7"], "source": [None, "ours"], "label": [None, None]}
    captions = [{"en": ["A ."]}, {"en": ["B ."]}]
    ours = save_dataset(tmp_path / "ours", {"image": image, **columns, "captions": captions}, features(["en"]))
    rows = rows_of(open_source("hub", str(theirs)))[:2]
    assert [row["image_id"] for row in rows] == ["theirs/train/0", "theirs/train/1"]
    rows = rows_of(open_source("hub", str(ours)))[:2]
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
        rows_of(open_source("hub", str(folder)))
    (only,) = open_source("hub", f"{folder},image=after,captions=long,id=key").rows()
    assert (only["captions_en"], only["image_id"], only["image"]) == (["B ."], "theirs/test/x/7", None)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (",image=none", "image=COLUMN"),
        (",image=text", "image=COLUMN"),
        (",captions=image", "captions=COLUMN"),
        (",split=none", "split=COLUMN.*text"),
        (",id=image", "id=COLUMN.*text"),
        (",size=x", "'size'.*image, captions, label, split, id, config, revision"),
    ],
)
def test_wrong_options_of_a_dataset_are_refused(tmp_path, options, culprit):
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, IMAGE_AND_TEXT)
    with pytest.raises(UserError, match=culprit):
        rows_of(open_source("hub", f"{folder}{options}"))


def test_a_dataset_without_captions_or_not_there_is_refused(tmp_path):
    types = {"image": ImageFeature(), "n": Value("int64")}
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "n": [1]}, types)
    with pytest.raises(UserError, match="captions=COLUMN"):
        rows_of(open_source("hub", str(folder)))
    with pytest.raises(UserError, match="nothing"):
        rows_of(open_source("hub", str(tmp_path / "nothing")))


def test_the_license_of_a_dataset_is_that_of_its_card(tmp_path):
    folder = save_dataset(tmp_path / "theirs", {"image": [None], "text": ["A ."]}, IMAGE_AND_TEXT)
    assert open_source("hub", str(folder)).license is None
    for card, license in (("license: mit", "mit"), ("license: [mit, cc0-1.0]", "mit, cc0-1.0"), ("license: [", None)):
        (folder / "README.md").write_text(f"---\n{card}\n---\n")
        assert open_source("hub", str(folder)).license == license


def test_labels_that_are_not_known_are_none_and_ids_keep_their_points(tmp_path):
    columns = {"image": [None] * 2, "text": ["A ."] * 2, "label": [-1, 0], "id": ["tile_0.1", "tile_0.2.TIF"]}
    types = IMAGE_AND_TEXT | {"label": ClassLabel(names=["beach"]), "id": Value("string")}
    rows = rows_of(open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("test",)))))
    assert [row["label"] for row in rows] == [None, "beach"]
    assert [row["image_id"] for row in rows] == ["theirs/test/tile_0.1", "theirs/test/tile_0.2"]


def pictures(tmp_path: Path, *shades: int) -> list[dict]:
    return [{"bytes": write_image(tmp_path / "a.png", (0, 0, shade)), "path": None} for shade in shades]


def test_rows_with_equal_images_are_one_image(tmp_path, capsys):
    columns = {"image": pictures(tmp_path, 1, 2, 1), "text": ["A .", "B .", "C ."], "id": [7, 8, 9]}
    types = IMAGE_AND_TEXT | {"id": Value("int64")}
    source = open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("train",))))
    for _ in range(2):  # a build reads the rows twice
        first, second = source.rows()
        assert (first["captions_en"], second["captions_en"]) == (["A .", "C ."], ["B ."])
        assert (first["image_id"], second["image_id"]) == ("theirs/train/7", "theirs/train/8")
    told = capsys.readouterr().err
    assert told.count("note: ") == 1 and "3 rows are 2 images" in told


def test_rows_of_different_names_are_different_images(tmp_path):
    columns = {"image": pictures(tmp_path, 1, 1, 1, 2), "text": ["A ."] * 4, "file_name": ["a", "b", "a", "a"]}
    types = IMAGE_AND_TEXT | {"file_name": Value("string")}
    rows = rows_of(open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("test",)))))
    # The last row has the name of the first and another image: a build refuses the equal ids.
    assert [row["image_id"][-1] for row in rows] == ["a", "b", "a"]
    assert [len(row["captions_en"]) for row in rows] == [2, 1, 1]


def test_equal_images_of_different_labels_or_splits_are_different_images(tmp_path):
    columns = {
        "image": pictures(tmp_path, 1, 1, 1),
        "text": ["A ."] * 3,
        "label": ["x", "y", "x"],
        "part": list("aab"),
    }
    types = IMAGE_AND_TEXT | {"label": Value("string"), "part": Value("string")}
    folder = save_dataset(tmp_path / "theirs", columns, types, ("train",))
    assert [len(row["captions_en"]) for row in open_source("hub", str(folder)).rows()] == [2, 1]
    assert [len(row["captions_en"]) for row in open_source("hub", f"{folder},split=part").rows()] == [1, 1, 1]


def test_images_may_be_the_bytes_of_their_files(tmp_path):
    encoded = write_image(tmp_path / "a.png")
    types = {"picture": Value("binary"), "text": Value("string")}
    folder = save_dataset(tmp_path / "theirs", {"picture": [encoded], "text": ["A ."]}, types)
    assert [row["image"] for row in open_source("hub", str(folder)).rows()] == [encoded, encoded]


def test_a_list_written_as_text_is_read_as_json(tmp_path):
    columns = {"image": pictures(tmp_path, 1), "raw": ['["A .", "B ."]']}
    types = {"image": ImageFeature(), "raw": Value("string")}
    (only,) = open_source("hub", str(save_dataset(tmp_path / "theirs", columns, types, ("train",)))).rows()
    assert only["captions_en"] == ["A .", "B ."]


def test_a_column_may_state_the_splits(tmp_path):
    columns = {"image": pictures(tmp_path, 1, 2), "text": ["A .", "B ."], "part": ["validation", None]}
    types = IMAGE_AND_TEXT | {"part": Value("string")}
    folder = save_dataset(tmp_path / "theirs", columns, types, ("train",))
    assert [row["split"] for row in open_source("hub", f"{folder},split=part").rows()] == ["val", None]
    assert [row["split"] for row in open_source("hub", str(folder)).rows()] == [None, None]


def test_a_column_split_states_the_splits_of_a_dataset_that_is_not_divided(tmp_path):
    columns = {"image": pictures(tmp_path, 1, 2), "text": ["A .", "B ."], "split": ["test", ""]}
    types = IMAGE_AND_TEXT | {"split": Value("string")}
    folder = save_dataset(tmp_path / "theirs", columns, types, ("train",))
    assert [row["split"] for row in open_source("hub", str(folder)).rows()] == ["test", None]
    divided = save_dataset(tmp_path / "divided", columns, types, ("train", "validation"))
    assert [row["split"] for row in open_source("hub", str(divided)).rows()] == ["train", "train", "val", "val"]


@pytest.mark.parametrize(("kind", "values"), [("string", ["fold1", "train"]), ("int64", [0, 1])])
def test_a_column_split_of_another_meaning_is_ignored_with_a_note(tmp_path, capsys, kind, values):
    columns = {"image": pictures(tmp_path, 1, 2), "text": ["A .", "B ."], "split": values}
    folder = save_dataset(tmp_path / "theirs", columns, IMAGE_AND_TEXT | {"split": Value(kind)}, ("train",))
    assert [row["split"] for row in open_source("hub", str(folder)).rows()] == [None, None]
    note = capsys.readouterr().err
    assert note.count("'split' is ignored") == 1 and repr(values[0]) in note


@pytest.mark.parametrize("more", ["description", "keywords"])
def test_a_list_of_texts_of_an_unknown_name_is_not_taken_for_captions(tmp_path, more):
    kind = List(Value("string"))
    columns = {
        "image": [None],
        "tags": [["sea", "boat"]],
        more: [["A boat ."]] if more == "keywords" else ["A boat ."],
    }
    types = {"image": ImageFeature(), "tags": kind, more: kind if more == "keywords" else Value("string")}
    folder = save_dataset(tmp_path / "theirs", columns, types)
    with pytest.raises(UserError, match=f"captions=COLUMN.*tags.*{more}"):
        rows_of(open_source("hub", str(folder)))


def test_columns_and_fields_named_by_language_are_captions(tmp_path):
    image, texts = pictures(tmp_path, 1), {"en": ["A .", "B ."], "pt": ["C .", None]}
    types = {"image": ImageFeature(), "en": List(Value("string")), "pt": List(Value("string"))}
    flat = save_dataset(
        tmp_path / "flat", {"image": image, **{code: [texts[code]] for code in texts}}, types, ("test",)
    )
    struct = {"image": ImageFeature(), "texts": {code: List(Value("string")) for code in texts}}
    nested = save_dataset(tmp_path / "nested", {"image": image, "texts": [texts]}, struct, ("test",))
    for folder in (flat, nested):
        source = open_source("hub", str(folder))
        (only,) = source.rows()
        assert only["given"] == texts and only["captions_en"] == texts["en"] and source.languages == {"en", "pt"}


def test_a_dataset_of_tar_files_is_refused_beside_its_reader(tmp_path):
    columns = {"jpg": pictures(tmp_path, 1), "txt": ["A ."], "__key__": ["a"], "__url__": ["a.tar"]}
    types = {"jpg": ImageFeature()} | dict.fromkeys(("txt", "__key__", "__url__"), Value("string"))
    folder = save_dataset(tmp_path / "theirs", columns, types, ("train",))
    with pytest.raises(UserError, match="webdataset=DIR"):
        rows_of(open_source("hub", str(folder)))
