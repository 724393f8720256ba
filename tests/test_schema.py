"""The schema: valid corpora are accepted, and error lines name the wrong split, column or language."""

import io
import re

import datasets
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from rsmclip.core.errors import UserError
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
def test_a_missing_column_is_named(column):
    assert repr(column) in refusal(corpus(**{column: None}))


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
    assert "row 1" in message and "'en'" in message and "'pt'" in message


def test_only_the_rows_of_a_selection_are_counted():
    rows = corpus()["train"]
    assert count_captions(rows) == {"en": 3, "pt": 1}
    assert count_captions(rows.select([1])) == {"en": 1, "pt": 0}


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match=tmp_path.name):
        load_corpus(tmp_path)


@pytest.mark.parametrize("fault", [ConnectionError, FileNotFoundError, RuntimeError])
def test_a_dataset_that_is_nowhere_or_a_script_is_refused(monkeypatch, fault):
    def load_dataset(name, *options, **more):
        raise fault(name)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="someone/nothing"):
        load_corpus("someone/nothing")


@pytest.mark.parametrize("name", ["not an id", "./nothing", "/nothing"])
def test_a_name_that_cannot_be_a_hub_id_is_refused_without_asking_the_hub(name):
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
    with pytest.raises(UserError, match="^the dataset [^\n]+ is damaged: [^\n]+$"):
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
