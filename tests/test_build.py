"""Building a corpus: rows and translations are complete, and a failed build leaves no files."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder
from rsmclip.data import build, write
from rsmclip.data.build import UnusableRows, build_corpus
from rsmclip.data.schema import RAW_CAPTIONS, check_schema, features, load_corpus
from rsmclip.data.sources import open_source
from rsmclip.data.sources.protocol import Source
from rsmclip.data.translation.translations import Translations
from tests.image_folders import write_csv, write_image, write_shard
from tests.killed import is_killed

pytestmark = pytest.mark.usefixtures("own_cache")


def made_source(root: Path, rows: int = 3, **changes) -> Source:
    """A folder of `rows` images, the last one in `test`, with `changes` to the metadata of the first."""
    root.mkdir(parents=True)
    lines = []
    for number in range(rows):
        Image.new("RGB", (5, 5), (number, 0, 0)).save(root / f"{number}.png")
        split = "test" if number == rows - 1 else "train"
        lines.append({"file_name": f"{number}.png", "captions": [f"road {number} .", "a field ."], "split": split})
    lines[0] |= changes
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return open_source("imagefolder", root)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_built_corpus_reads_back_with_its_schema(tmp_path):
    source = made_source(tmp_path / "made")
    report = build_corpus([source], tmp_path / "out", Translations({"a field.": {"ko": "밭.", "pt": "Um campo."}}))
    loaded = load_dataset(str(tmp_path / "out"))
    assert loaded["train"].features == features(("en", "pt", "ko"), raw=True)  # in the project's order of languages
    assert loaded["train"].num_rows == 2 and loaded["test"].num_rows == 1
    row = load_corpus(tmp_path / "out")["train"][1]
    assert row == {
        "image": {"bytes": (tmp_path / "made" / "1.png").read_bytes(), "path": None},
        "image_id": "made/1",
        "source": "made",
        "label": None,
        "captions": {"en": ["road 1.", "a field."], "pt": [None, "Um campo."], "ko": [None, "밭."]},
        RAW_CAPTIONS: ["road 1 .", "a field ."],
    }
    assert report.rows == {("made", "train"): 2, ("made", "test"): 1} and report.captions["train", "pt"] == 2
    assert not leftovers(tmp_path)


def test_the_card_has_the_configuration_for_load_dataset(tmp_path):
    build_corpus([made_source(tmp_path / "made")], tmp_path / "out", Translations({"a field.": {"pt": "Um campo."}}))
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.language == ["en", "pt"]
    files = card.data.configs[0]["data_files"]
    assert files == [{"split": split, "path": f"data/{split}-*.parquet"} for split in ("train", "test")]
    sizes = {split["name"]: split["num_examples"] for split in card.data.dataset_info["splits"]}
    assert sizes == {"train": 2, "test": 1}
    assert "| train | 2 | 4 | 2 |" in card.text


def test_sources_are_concatenated_in_order_in_english_without_translations(tmp_path):
    build_corpus([made_source(tmp_path / "b"), made_source(tmp_path / "a")], tmp_path / "out")
    rows = load_corpus(tmp_path / "out")["train"]
    assert rows["image_id"][:] == ["b/0", "b/1", "a/0", "a/1"] and list(rows.features["captions"]) == ["en"]


def test_one_source_is_a_list_of_one(tmp_path):
    source = f"imagefolder={made_source(tmp_path / 'made').root}"
    assert build_corpus(source, tmp_path / "out").rows == build_corpus([source], tmp_path / "other").rows


def test_shards_and_row_groups_are_cut_and_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(write, "ROWS_PER_SHARD", 4)
    build_corpus([made_source(tmp_path / "made", rows=10)], tmp_path / "out")
    shards = sorted((tmp_path / "out" / "data").iterdir())
    names = ["test-00000-of-00001", *(f"train-{number:05d}-of-00003" for number in range(3))]
    assert [shard.stem for shard in shards] == names
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [1, 4, 4, 1]
    assert pq.read_metadata(shards[1]).num_row_groups == 2
    assert load_corpus(tmp_path / "out")["train"]["image_id"][:] == [f"made/{number}" for number in range(9)]


def test_rows_are_read_one_row_group_ahead_at_most(tmp_path, monkeypatch):
    """Memory stays flat: were rows collected before they are written, the first row group would come too late."""
    monkeypatch.setattr(write, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(write, "ROWS_PER_SHARD", 4)
    read, written = [], []
    flush = write.SplitWriter.flush
    monkeypatch.setattr(write.SplitWriter, "flush", lambda writer: (written.append(len(read)), flush(writer)))
    encode = build.encode_image
    monkeypatch.setattr(build, "encode_image", lambda *image: (read.append(1), encode(*image))[1])
    build_corpus([made_source(tmp_path / "made", rows=9)], tmp_path / "out")
    assert written[:4] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file_name": "gone.png"}, "image missing"),
        ({"captions": []}, "no captions"),
        ({"captions": [None, " "]}, "empty caption"),
        ({"captions": ["a road .", ["a"]]}, "caption that is not text"),
        ({"split": "holdout"}, "unknown split"),
        ({"file_name": "metadata.jsonl"}, "image undecodable"),
        ({"file_name": "ma\udcefs.png"}, "text that is not Unicode"),  # as Python reads a file name in Latin-1
    ],
)
def test_a_bad_row_stops_the_build_or_is_left_out(tmp_path, changes, problem):
    source = made_source(tmp_path / "made", **changes)
    with pytest.raises(UnusableRows, match=f"{problem}: 1.*--skip_bad") as error:
        build_corpus([source], tmp_path / "out")
    assert [fault.problem for fault in error.value.faults] == [problem]
    assert not (tmp_path / "out").exists() and not leftovers(tmp_path)

    report = build_corpus([source], tmp_path / "out", skip_bad=True)
    assert [fault.problem for fault in report.faults] == [problem]
    assert sum(report.rows.values()) == 2
    assert f"({problem}: 1)" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_an_empty_caption_stops_the_build_or_is_left_out_alone(tmp_path):
    write_image(tmp_path / "made" / "a.png")
    write_csv(tmp_path / "made" / "captions.csv", "file_name,text", ("a.png", "A."), ("a.png", ""), ("a.png", "B."))
    source = f"imagefolder={tmp_path / 'made'}"
    with pytest.raises(UnusableRows, match="empty caption: 1.*--skip_bad") as error:
        build_corpus([source], tmp_path / "out")
    assert error.value.faults == [("empty caption", "made/a", "captions.csv, line 3")]
    report = build_corpus([source], tmp_path / "out", skip_bad=True)
    assert report.faults == error.value.faults
    [row] = load_corpus(tmp_path / "out")["train"]
    assert row["captions"] == {"en": ["A.", "B."]} and row[RAW_CAPTIONS] == ["A.", "B."]


GOOD = {"filename": "0.png", "split": "train", "sentences": [{"raw": "a road ."}]}
MALFORMED = {
    "rsitmd": ("dataset_RSITMD.json", json.dumps({"images": [GOOD, GOOD | {"sentences": [{"tokens": ["a"]}]}]})),
    "nwpu": (
        "dataset_nwpu.json",
        json.dumps({"field": [GOOD | {"raw": "a road ."}, {"filename": "../0.png", "split": "train", "raw": "a"}]}),
    ),
    "imagefolder": ("metadata.jsonl", '{"file_name": "0.png", "text": "a road ."}\n{"file_name": "0.png", "te'),
    "imagefolder,captions=text": ("metadata.csv", "file_name,text\n0.png,a road .\n0.png,a road, a field ."),
    "imagefolder,label=label": (
        "metadata.jsonl",
        '{"file_name": "0.png", "text": "a ."}\n{"file_name": "1.png", "text": "a .", "label": "x"}\n'
        '{"file_name": "1.png", "text": "b .", "label": "y"}',
    ),
    "webdataset": ("shard.tar", {"a.json": '{"text": "a road ."}', "b.json": '{"text": "a'}),
    "webdataset,captions=txt": ("shard.tar", {"a.txt": "a road .", "b.txt": b"\xff\xfe"}),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_annotation_of_one_image_stops_the_build_or_is_left_out(tmp_path, kind):
    (file, content), (name, *options) = MALFORMED[kind], kind.split(",")
    home = tmp_path / "home" / "made"
    encoded = write_image(
        home / ("images/field" if name == "nwpu" else "images" if name == "rsitmd" else "") / "0.png"
    )
    if file.endswith(".tar"):
        write_shard(home / file, dict(sorted(({"a.png": encoded, "b.png": encoded} | content).items())))
    else:
        (home / file).write_text(content)
    source = ",".join([f"{name}={home}", *options])
    with pytest.raises(UnusableRows, match="malformed annotation: 1.*--skip_bad") as error:
        build_corpus([source], tmp_path / "out")
    assert error.value.faults[0].place.startswith(file)
    report = build_corpus([source], tmp_path / "out", skip_bad=True)
    assert [fault.problem for fault in report.faults] == ["malformed annotation"] and report.rows.total() == 1
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_path_of_a_line_is_shown_as_it_is_written(tmp_path, monkeypatch):
    source = made_source(tmp_path / "made", file_name="../a.png")
    monkeypatch.chdir(tmp_path / "made")
    for folder in (source, "imagefolder=."):
        report = build_corpus([folder], tmp_path / "out", skip_bad=True, overwrite=True)
        assert report.faults[0].place.startswith("metadata.jsonl, line 1 ") and "'../a.png'" in report.faults[0].place


@pytest.mark.parametrize("name", ["/d/n/Höfe & Häfen/river.jpg", "n/../b.png", "o" * 300])
def test_only_the_folder_of_a_source_is_left_out_of_a_place(tmp_path, monkeypatch, name):
    made_source(tmp_path / "n", file_name=name)
    with (tmp_path / "n" / "metadata.jsonl").open("a") as lines:
        lines.write('{"file_name": "1.png", "text": "a .", "split": "test"}')
    monkeypatch.chdir(tmp_path)
    for folder in ("n", tmp_path / "n"):
        report = build_corpus([f"imagefolder={folder}"], tmp_path / "out", skip_bad=True, overwrite=True)
        [of_name, of_split] = sorted(fault.place for fault in report.faults)
        assert of_name.startswith("metadata.jsonl, line 1") and repr(name) in of_name
        assert of_split.startswith("metadata.jsonl, line 4: split") and of_split.endswith("in metadata.jsonl, line 2")
        assert all(str(tmp_path) not in place for place in (of_name, of_split))


def test_a_pattern_of_shards_shows_no_local_path_in_the_card(tmp_path):
    encoded = write_image(tmp_path / "0.png")
    files = {"a.json": '{"text": "a road ."}', "a.png": encoded, "b.json": '{"text": "a', "b.png": encoded}
    write_shard(tmp_path / "home" / "shard.tar", files)
    report = build_corpus([f"webdataset={tmp_path}/home/*.tar"], tmp_path / "out", skip_bad=True)
    assert [fault.problem for fault in report.faults] == ["malformed annotation"]
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_images_of_one_name_are_refused(tmp_path):
    source = made_source(tmp_path / "made", file_name="1.jpg")
    Image.new("RGB", (5, 5)).save(tmp_path / "made" / "1.jpg")
    with pytest.raises(UnusableRows, match="duplicate id: 1") as error:
        build_corpus([source], tmp_path / "out")
    assert error.value.faults[0].place == "made/1.png"


def test_a_folder_that_is_not_empty_is_kept(tmp_path):
    source = made_source(tmp_path / "made")
    build_corpus([source], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_bytes()
    with pytest.raises(UserError, match="--overwrite_output_dir"):
        build_corpus([source], tmp_path / "out", Translations({"a field.": {"pt": "Um campo."}}))
    assert (tmp_path / "out" / "README.md").read_bytes() == card


def test_a_dataset_is_overwritten_only_by_a_complete_one(tmp_path):
    build_corpus([made_source(tmp_path / "made")], tmp_path / "out")
    bad = made_source(tmp_path / "bad", captions=[])
    with pytest.raises(UserError):
        build_corpus([bad], tmp_path / "out", overwrite=True)
    assert load_corpus(tmp_path / "out")["train"]["source"][:] == ["made", "made"]
    build_corpus([bad], tmp_path / "out", overwrite=True, skip_bad=True)
    assert load_corpus(tmp_path / "out")["train"]["source"][:] == ["bad"]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(("rename", "is_gone", "sources"), [(4, False, ["made"] * 2), (5, True, ["new"] * 2)])
def test_a_kill_while_a_corpus_is_replaced_loses_nothing(tmp_path, rename, is_gone, sources):
    build_corpus([made_source(tmp_path / "made")], tmp_path / "out")
    made_source(tmp_path / "new")
    code = "import sys; from rsmclip.data import build; build.build_corpus(sys.argv[1:2], sys.argv[2], overwrite=True)"
    # Two shards get their names, the corpus is complete, the old one gives way, the new one takes its place.
    assert is_killed(code, rename, tmp_path, f"imagefolder={tmp_path / 'new'}", tmp_path / "out")
    assert (tmp_path / "out").exists() is not is_gone and leftovers(tmp_path)
    assert load_corpus(tmp_path / "out")["train"]["source"][:] == sources
    build_corpus([open_source("imagefolder", tmp_path / "made")], tmp_path / "out", overwrite=True)
    assert load_corpus(tmp_path / "out")["train"]["source"][:] == ["made"] * 2 and not leftovers(tmp_path)


def test_a_killed_build_into_an_empty_folder_does_not_block_it(tmp_path):
    made_source(tmp_path / "made")
    (tmp_path / "out").mkdir()
    code = "import sys; from rsmclip.data import build; build.build_corpus(sys.argv[1:2], sys.argv[2])"
    assert is_killed(code, 1, tmp_path, f"imagefolder={tmp_path / 'made'}", tmp_path / "out")
    assert any((tmp_path / "out").iterdir())
    build_corpus([f"imagefolder={tmp_path / 'made'}"], tmp_path / "out")
    assert load_corpus(tmp_path / "out")["train"].num_rows == 2 and not leftovers(tmp_path / "out")


@pytest.mark.parametrize("kind", ["image", "folder of images", "annotations", "shard", "corpus"])
def test_a_link_out_of_the_folder_of_a_source_is_refused_unless_an_option_allows_it(tmp_path, kind):
    made_source(tmp_path / "disk" / "made")
    encoded = (tmp_path / "disk" / "made" / "0.png").read_bytes()
    write_shard(tmp_path / "disk" / "one.tar", {"a.png": encoded, "a.txt": "a road ."})
    build_corpus([open_source("imagefolder", tmp_path / "disk" / "made")], tmp_path / "disk" / "corpus")
    home = tmp_path / "downloaded"
    home.mkdir()
    name, link, target = {
        "image": ("imagefolder", "0.png", "made/0.png"),
        "annotations": ("imagefolder", "metadata.jsonl", "made/metadata.jsonl"),
        "folder of images": ("rsitmd", "images", "made"),
        "shard": ("webdataset", "one.tar", "one.tar"),
        "corpus": ("hub", "train.parquet", "corpus/data/train-00000-of-00001.parquet"),
    }[kind]
    if kind in ("image", "annotations"):
        shutil.copytree(tmp_path / "disk" / "made", home, dirs_exist_ok=True)
        (home / link).unlink()
    sentences = [{"raw": "a road ."}]
    entry = {"filename": "0.png", "split": "train", "sentences": sentences}
    (home / "dataset_RSITMD.json").write_text(json.dumps({"images": [entry]}))
    (home / link).symlink_to(tmp_path / "disk" / target)
    (home / "inside").symlink_to("dataset_RSITMD.json")  # no reason to refuse
    with pytest.raises(UserError, match=f"{home / link} .*--follow_links"):
        build_corpus([f"{name}={home}"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    build_corpus([f"{name}={home}"], tmp_path / "out", follow_links=True)
    assert load_corpus(tmp_path / "out")["train"].num_rows


def test_the_links_of_a_snapshot_in_the_cache_of_the_hub_are_read(tmp_path):
    repository = tmp_path / "datasets--user--name"
    made_source(repository / "snapshots" / ("0" * 40))
    (repository / "blobs").mkdir()
    for path in (repository / "snapshots" / ("0" * 40)).iterdir():
        path.rename(repository / "blobs" / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    build_corpus([f"imagefolder={repository / 'snapshots' / ('0' * 40)}"], tmp_path / "out")
    assert load_corpus(tmp_path / "out")["train"].num_rows == 2


def test_only_a_corpus_is_overwritten(tmp_path):
    source = made_source(tmp_path / "all" / "made")
    build_corpus([source], tmp_path / "all" / "out")
    (tmp_path / "file").write_text("mine")
    for place, culprit in (("all", "all"), ("all/made", "0.png"), ("file", "file")):
        with pytest.raises(UserError, match=culprit):
            build_corpus([source], tmp_path / place, overwrite=True)
    assert (tmp_path / "all" / "made" / "0.png").is_file() and (tmp_path / "file").read_text() == "mine"


def test_the_reason_why_an_image_is_refused_is_kept(tmp_path):
    source = made_source(tmp_path / "made")
    Image.new("RGB", (1, 60)).save(tmp_path / "made" / "0.png")
    with pytest.raises(UnusableRows) as error:
        build_corpus([source], tmp_path / "out")
    [fault] = error.value.faults
    assert fault.place.startswith("made/0.png: ") and "60" in fault.place


def test_a_folder_that_cannot_be_read_is_a_user_error(tmp_path):
    source, name = made_source(tmp_path / "made"), "o" * 300
    with pytest.raises(UserError, match=name):
        build_corpus([source], tmp_path / name)
    with pytest.raises(UserError, match=name), new_folder(tmp_path / name):
        pass


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.pq, "ParquetWriter", full)
    with pytest.raises(UserError, match="No space left"):
        build_corpus([made_source(tmp_path / "made")], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not leftovers(tmp_path)


def test_sources_of_one_name_or_without_usable_rows_are_refused(tmp_path):
    sources = [made_source(tmp_path / "one" / "same"), made_source(tmp_path / "two" / "same", rows=1, captions=[])]
    with pytest.raises(UserError, match="same"):
        build_corpus(sources, tmp_path / "out")
    with pytest.raises(UserError, match="nothing to write"):
        build_corpus(sources[1:], tmp_path / "out", skip_bad=True)


def test_the_card_names_only_languages_that_have_captions(tmp_path):
    translations = Translations({"of another corpus.": {"pt": "De outro corpus."}, "a field.": {"ko": "밭."}})
    build_corpus([made_source(tmp_path / "made")], tmp_path / "out", translations)
    assert DatasetCard.load(tmp_path / "out" / "README.md").data.language == ["en", "ko"]


def test_a_built_corpus_is_built_again_with_translations(tmp_path):
    build_corpus([made_source(tmp_path / "made")], tmp_path / "english")
    again = open_source("hub", str(tmp_path / "english"))
    build_corpus([again], tmp_path / "out", Translations({"a field.": {"pt": "Um campo."}}))
    before, after = (load_corpus(tmp_path / name)["train"][0] for name in ("english", "out"))
    assert after["captions"] == {"en": ["road 0.", "a field."], "pt": [None, "Um campo."]}
    for column in ("image", "image_id", "source", "label", RAW_CAPTIONS):
        assert after[column] == before[column]


def test_captions_of_a_source_are_stored_as_given_and_win_over_translations(tmp_path):
    lines = [
        ("a.png", "a  road .", " Uma \n via . ", ""),
        ("b.png", "", "Um rio", ""),
        ("a.png", "a field .", "", "밭"),
    ]
    write_csv(tmp_path / "made" / "metadata.csv", "file_name,en,pt,ko", *lines)
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "made" / name)
    translations = Translations({"a road.": {"pt": "Uma estrada.", "fr": "Une route."}, "a field.": {"pt": "Campo."}})
    report = build_corpus([open_source("imagefolder", tmp_path / "made")], tmp_path / "out", translations)
    first, second = load_corpus(tmp_path / "out")["train"]
    assert first["captions"] == {
        "en": ["a road .", "a field ."],
        "pt": ["Uma via .", "Campo."],
        "fr": ["Une route.", None],
        "ko": [None, "밭"],
    }
    assert second["captions"] == {"en": None, "pt": ["Um rio"], "fr": [None], "ko": [None]}
    assert (first[RAW_CAPTIONS], second[RAW_CAPTIONS]) == (["a  road .", "a field ."], None)
    assert report.given == {"en", "pt", "ko"} and report.captions["train", "pt"] == 3


def test_a_corpus_without_english_says_so_and_is_built_again(tmp_path):
    write_csv(tmp_path / "made" / "metadata.csv", "file_name,pt", ("a.png", "Um rio"), ("a.png", "Uma ponte"))
    write_image(tmp_path / "made" / "a.png")
    build_corpus([open_source("imagefolder", tmp_path / "made")], tmp_path / "first")
    build_corpus([open_source("hub", tmp_path / "first")], tmp_path / "second")
    for name in ("first", "second"):
        rows = check_schema(load_corpus(tmp_path / name), "train", ["pt"])
        assert rows[0]["captions"] == {"en": None, "pt": ["Um rio", "Uma ponte"]}
        assert rows[0]["image_id"] == "made/a" and rows[0][RAW_CAPTIONS] is None
        card = DatasetCard.load(tmp_path / name / "README.md")
        assert card.data.language == ["pt"] and "No caption is in English" in card.text
        assert "Captions in pt are from the sources" in card.text


def test_a_corpus_that_is_built_again_keeps_all_languages(tmp_path):
    source = made_source(tmp_path / "made")
    build_corpus([source], tmp_path / "first", Translations({"a field.": {"ko": "밭.", "pt": "Um campo."}}))
    more = Translations({"road 0.": {"pt": "Via 0."}, "a field.": {"pt": "Campo.", "fr": "Un champ."}})
    build_corpus([open_source("hub", tmp_path / "first")], tmp_path / "second", more)
    assert load_corpus(tmp_path / "second")["train"][0]["captions"] == {
        "en": ["road 0.", "a field."],
        "pt": ["Via 0.", "Um campo."],
        "fr": [None, "Un champ."],
        "ko": [None, "밭."],
    }


@pytest.mark.parametrize(
    ("changes", "split", "told"),
    [
        ({}, None, ["state the split of 3 images"]),
        ({"split": None}, None, ["state the split of 2 images", "stated for 1 images. They are `train`"]),
        ({"split": None}, "0/0/100", ["stated for 1 images. `--split 0/0/100 --seed 0`"]),
    ],
)
def test_the_card_says_where_the_splits_are_from(tmp_path, changes, split, told):
    report = build_corpus([made_source(tmp_path / "made", **changes)], tmp_path / "out", split=split)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert all(text in card for text in told) and "Official" not in card
    assert report.rows["made", "test"] == (2 if split else 1)
