"""The schema: valid corpora are accepted, and error lines name the wrong split, column or language."""

import io
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from datasets.exceptions import DatasetGenerationError
from PIL import Image as PILImage

from rsmclip.core.errors import UserError
from rsmclip.core.images import image_bytes
from rsmclip.core.languages import LANGUAGES
from rsmclip.data import schema
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import check_schema, count_captions, features, load_corpus
from rsmclip.data.write import write_corpus

pytestmark = pytest.mark.usefixtures("own_cache")

CAPTIONS = [{"en": ["A road.", "A field."], "pt": ["Uma estrada.", None]}, {"en": ["A"], "pt": [None]}]


def encoded_png() -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", (4, 3), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def corpus(captions: list[dict] = CAPTIONS, /, **columns) -> DatasetDict:
    """A corpus of one split; `columns` replaces columns, as (feature, values), and `None` leaves one out."""
    number = len(captions)
    table = {
        "image": (Image(), [{"bytes": encoded_png(), "path": None}] * number),
        "image_id": (Value("string"), [f"made/{row}" for row in range(number)]),
        "source": (Value("string"), ["made"] * number),
        "label": (Value("string"), [None] * number),
        "captions": ({language: List(Value("string")) for language in captions[0]}, captions),
    }
    table = {name: column for name, column in (table | columns).items() if column is not None}
    values = {name: column[1] for name, column in table.items()}
    return DatasetDict({"train": Dataset.from_dict(values, Features({n: c[0] for n, c in table.items()}))})


def refusal(dataset: DatasetDict, split: str = "train", languages: tuple[str, ...] = ("en",)) -> str:
    with pytest.raises(UserError) as error:
        check_schema(dataset, split, languages)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_corpus_in_the_schema_is_accepted():
    dataset = corpus()
    assert dataset["train"].features == features(("en", "pt"))
    assert check_schema(dataset, "train", ("en", "pt")) is dataset["train"]


def test_the_saved_corpus_comes_back_with_encoded_images(tmp_path):
    corpus().save_to_disk(tmp_path / "saved")
    loaded = load_corpus(tmp_path / "saved")
    assert loaded["train"][0]["image"]["bytes"] == encoded_png()
    assert len(check_schema(loaded, "train", ("en", "pt"))) == 2


def test_a_missing_split_is_named_beside_those_that_exist():
    message = refusal(corpus(), split="test")
    assert "'test'" in message and "train" in message


@pytest.mark.parametrize("column", list(features(())))
def test_a_missing_column_is_named_with_the_command_that_makes_a_corpus(column):
    message = refusal(corpus(**{column: None}))
    assert repr(column) in message and "'train'" in message and "--source hub=" in message


@pytest.mark.parametrize(
    ("column", "feature", "values"),
    [
        ("image", Value("string"), ["a.jpg"] * 2),
        ("image_id", Value("int64"), [1, 2]),
        ("source", Value("int64"), [1, 2]),
        ("label", datasets.ClassLabel(names=["road"]), [0, 0]),
        ("captions", List(Value("string")), [["A road."]] * 2),
        ("captions", {"en": Value("string")}, [{"en": "A road."}] * 2),
    ],
)
def test_a_column_of_the_wrong_type_is_named(column, feature, values):
    message = refusal(corpus(**{column: (feature, values)}))
    assert column in message and "type" in message


def test_a_corpus_without_classes_may_have_lost_the_type_of_its_labels():
    check_schema(corpus(label=(Value("null"), [None, None])), "train", ("en",))


@pytest.mark.parametrize("lack", [{}, {"ko": [None]}, {"ko": [""]}, {"ko": None}])
def test_a_language_without_captions_is_named_beside_those_that_have_some(lack):
    dataset = corpus([{"en": ["A road."], "pt": ["Uma estrada."], **lack}])
    message = refusal(dataset, languages=("en", "ko"))
    assert " ko" in message and "en, pt" in message


def test_captions_that_are_not_aligned_are_refused():
    dataset = corpus([{"en": ["A."], "pt": ["B."]}, {"en": ["A.", "C."], "pt": ["B."]}])
    message = refusal(dataset)
    assert "'train', row 1" in message and "'en'" in message and "'pt'" in message


def test_only_the_rows_of_a_selection_are_counted():
    rows = corpus()["train"]
    assert count_captions(rows) == {"en": 3, "pt": 1}
    assert count_captions(rows.select([1])) == {"en": 1, "pt": 0}


def test_a_folder_without_a_dataset_is_refused_with_the_sources_that_read_it(tmp_path):
    with pytest.raises(UserError, match=f"imagefolder={tmp_path} .*webdataset={tmp_path}"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("fault", [ConnectionError, FileNotFoundError, RuntimeError])
def test_a_dataset_that_cannot_be_opened_is_refused_with_the_reason(monkeypatch, fault):
    def load_dataset_builder(name, *options, **more):
        raise fault(f"{name} is\ngated")

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    with pytest.raises(UserError, match="someone/nothing.* is gated"):
        load_corpus("someone/nothing")


def test_a_full_disk_is_no_damage_of_the_dataset(tmp_path, monkeypatch):
    def download_and_prepare(builder):
        raise DatasetGenerationError("An error occurred") from OSError(28, "No space left on device")

    Dataset.from_dict({"image_id": ["a"]}).to_parquet(tmp_path / "train.parquet")
    monkeypatch.setattr(datasets.DatasetBuilder, "download_and_prepare", download_and_prepare)
    with pytest.raises(UserError, match=f"{tmp_path.name}.*No space left") as error:
        load_corpus(tmp_path)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("name", ["not an id", "./nothing", "/nothing"])
def test_a_name_that_cannot_be_a_hub_id_is_refused_without_asking_the_hub(monkeypatch, name):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the Hub was asked"))
    with pytest.raises(UserError, match=name):
        load_corpus(name)


def test_an_unknown_configuration_is_refused(tmp_path):
    Dataset.from_dict({"image_id": ["a"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match="other"):
        load_corpus(tmp_path, "other")


@pytest.mark.parametrize("name", ["train.parquet", "dataset_dict.json", "state.json"])
def test_damaged_files_are_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=f"^[^\n]*{tmp_path.name}[^\n]*$"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("place", ["first/corpus", "second/corpus"])
def test_a_corpus_is_read_anew_after_a_change_of_equal_length(tmp_path, place):
    for folder, label in (("first/corpus", "river"), (place, "lakes")):
        examples = [("train", row | {"label": label}) for _, row in demo_examples(rows={"train": 2})]
        write_corpus(examples, features(LANGUAGES), tmp_path / folder, True, demo_card)
        assert set(load_corpus(tmp_path / folder)["train"]["label"]) == {label}


def test_shards_whose_columns_differ_are_refused_in_one_line(tmp_path):
    for number, column in enumerate(("image_id", "name")):
        Dataset.from_dict({column: ["a"]}).to_parquet(tmp_path / f"train-{number}.parquet")
    with pytest.raises(UserError, match=f"^[^\n]*{tmp_path.name}[^\n]*name[^\n]*$"):
        load_corpus(tmp_path)


def card(*lines: str) -> str:
    return "\n".join(["---", *lines, "---", ""])


FILES = ("configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: ")
ROWS = ("dataset_info:", "  splits:", "  - name: train", "    num_bytes: 9", "    num_examples: 7")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (card("x: !!python/object/apply:os.mkdir [run]"), "README.md.*python/object"),
        (card("x: \x1b[31m"), "README.md.*special characters"),
        (card("x: [1"), "README.md"),
        (card("- a list"), "dict"),
        (card(*ROWS), "'train' should have 7 rows, but has 1;.*dataset_info"),
        (card(*FILES[:-1], FILES[-1] + "broken.zip"), "archive.*BadZipFile.*fetch"),
        (card(*FILES[:-1], FILES[-1] + "broken.tar"), "archive.*ReadError.*fetch"),
        (card(*FILES[:-1], FILES[-1] + "broken.csv.gz"), "broken|damaged"),
    ],
)
def test_a_damaged_card_or_archive_is_refused_in_one_line(tmp_path, monkeypatch, own_cache, text, named):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "corpus"
    Dataset.from_dict({"image_id": ["a"]}).to_parquet(folder / "train.parquet")
    for name in ("broken.zip", "broken.tar", "broken.csv.gz"):
        (folder / name).write_bytes(b"PK\x03\x04" + bytes(600) if name != "broken.csv.gz" else b"\x1f\x8b\x08 no")
    (folder / "README.md").write_text(text)
    with pytest.raises(UserError, match=f"^[^\n]*{folder}[^\n]*$") as error:
        load_corpus(folder)
    assert re.search(named, str(error.value)) and not (tmp_path / "run").exists()


def test_a_bug_in_our_code_is_not_reported_as_a_damaged_dataset(tmp_path, monkeypatch):
    Dataset.from_dict({"image_id": ["a"]}).to_parquet(tmp_path / "train.parquet")
    monkeypatch.setattr(schema, "keep_encoded", lambda rows: {}["a bug"])
    with pytest.raises(KeyError):
        load_corpus(tmp_path)


def private_picture(folder) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "private.png").write_bytes(encoded_png())
    return str(folder / "private.png")


@pytest.mark.parametrize("kind", ["parquet", "saved to disk", "struct", "link"])
def test_a_row_that_names_a_picture_of_this_machine_is_refused(tmp_path, kind):
    path = private_picture(tmp_path / "home")
    if kind == "link":
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus" / "mine.png").symlink_to(path)
        path = str(tmp_path / "corpus" / "mine.png")
    struct = {"bytes": Value("binary"), "path": Value("string")}
    images = [{"bytes": encoded_png(), "path": "a.png"}, {"bytes": None, "path": path}]
    rows = corpus(image=(struct, images))["train"]
    rows = rows if kind == "struct" else rows.cast_column("image", Image(decode=False))
    if kind == "saved to disk":  # `save_to_disk` stores the bytes of the file: take them out again
        rows.save_to_disk(tmp_path / "corpus")
        [saved] = (tmp_path / "corpus").glob("*.arrow")
        with pa.OSFile(str(saved), "wb") as file, pa.ipc.new_stream(file, rows.data.schema) as writer:
            writer.write_table(rows.data.table)
    else:
        (tmp_path / "corpus").mkdir(exist_ok=True)
        pq.write_table(rows.data.table, tmp_path / "corpus" / "train.parquet")
    with pytest.raises(UserError, match=f"image.*{path}"):
        load_corpus(tmp_path / "corpus")


def test_rows_may_name_pictures_of_their_own_folder_and_missing_ones(tmp_path):
    paths = [private_picture(tmp_path / "corpus" / "images"), str(tmp_path / "gone.png")]
    rows = corpus(image=(Image(decode=False), [{"bytes": None, "path": path} for path in paths]))["train"]
    pq.write_table(rows.data.table, tmp_path / "corpus" / "train.parquet")
    assert [image["path"] for image in load_corpus(tmp_path / "corpus")["train"]["image"]] == paths


def test_other_columns_may_have_a_path(tmp_path):
    rows = corpus(about=({"path": Value("string")}, [{"path": "a"}] * 2))["train"]
    (tmp_path / "corpus").mkdir()
    rows.to_parquet(tmp_path / "corpus" / "train.parquet")
    assert load_corpus(tmp_path / "corpus")["train"]["about"][0] == {"path": "a"}


def test_a_file_beside_the_corpus_does_not_make_a_second_copy_of_it(tmp_path):
    (tmp_path / "corpus").mkdir()
    corpus()["train"].to_parquet(tmp_path / "corpus" / "train.parquet")
    first = load_corpus(tmp_path / "corpus")["train"].cache_files
    (tmp_path / "corpus" / "notes.txt").write_text("mine")
    assert load_corpus(tmp_path / "corpus")["train"].cache_files == first


def test_a_row_may_name_a_picture_by_a_path_that_no_file_can_have(tmp_path):
    images = [{"bytes": None, "path": path} for path in ("x" * 5000, "a\0b")]
    rows = corpus(image=(Image(decode=False), images))["train"]
    (tmp_path / "corpus").mkdir()
    pq.write_table(rows.data.table, tmp_path / "corpus" / "train.parquet")
    found = load_corpus(tmp_path / "corpus")["train"]["image"]
    assert [image_bytes(image) for image in found] == [None, None]


@pytest.mark.parametrize("column", ["image_id", "captions", "image"])
def test_texts_that_are_not_utf_8_are_refused_in_one_line(tmp_path, column):
    (tmp_path / "corpus").mkdir()
    path = tmp_path / "corpus" / "train.parquet"
    marked = {"image_id": "made/", "captions": "A road", "image": "a.png"}[column].encode()
    table = corpus(image=(Image(decode=False), [{"bytes": encoded_png(), "path": "a.png"}] * 2))["train"].data.table
    pq.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(marked, b"\xff" + marked[1:]))
    with pytest.raises(UserError, match="^[^\n]*damaged[^\n]*UTF8[^\n]*$"):
        load_corpus(tmp_path / "corpus")


@pytest.mark.parametrize("place", ["/home/*.parquet", "../home/*.parquet", "hf://datasets/me/private/*.parquet"])
def test_a_card_that_names_data_files_of_another_place_is_refused(tmp_path, place):
    (tmp_path / "home").mkdir()
    corpus()["train"].to_parquet(tmp_path / "home" / "private.parquet")
    (tmp_path / "corpus").mkdir()
    corpus()["train"].to_parquet(tmp_path / "corpus" / "train.parquet")
    place = place.replace("/home", f"{tmp_path}/home") if place.startswith("/") else place
    files = f"  data_files:\n  - split: train\n    path: {place}\n"
    (tmp_path / "corpus" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n{files}---\n")
    with pytest.raises(UserError, match="private" if "hf:" not in place else "corpus"):
        load_corpus(tmp_path / "corpus")


def test_a_folder_whose_owner_linked_its_shards_is_read(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "corpus").mkdir()
    corpus()["train"].to_parquet(tmp_path / "disk" / "train.parquet")
    (tmp_path / "corpus" / "data").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to("corpus")
    (tmp_path / "corpus" / "x.parquet").symlink_to(tmp_path / "disk" / "train.parquet")
    assert load_corpus(tmp_path / "link")["train"].num_rows


@pytest.mark.parametrize("name", ["corp[v1]", "a*b?", "[!x]"])
def test_a_folder_whose_name_has_characters_of_patterns_is_read(tmp_path, name):
    for split in ("train", "test"):
        corpus()["train"].to_parquet(tmp_path / name / "data" / f"{split}-00000-of-00001.parquet")
    found = load_corpus(tmp_path / name)
    assert list(found) == ["test", "train"] and found["train"]["image_id"][:] == ["made/0", "made/1"]
    assert check_schema(found, "train", ["en"]).features["captions"] == corpus()["train"].features["captions"]
    (tmp_path / name / "more.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="more.parquet.*rename"):
        load_corpus(tmp_path / name)
