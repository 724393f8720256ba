"""WebDataset shards: samples are read as they are, and a suffix that appears late is refused."""

import pytest

from rsmclip.core.errors import UserError
from rsmclip.data.build import build_corpus
from rsmclip.data.sources import open_source
from rsmclip.data.sources.protocol import SourceRow
from tests.image_folders import rows_of, write_image, write_shard

pytestmark = pytest.mark.usefixtures("own_cache")


def captioned(encoded: bytes, *keys: str) -> dict[str, object]:
    return {f"{key}{suffix}": value for key in keys for suffix, value in ((".jpg", encoded), (".txt", f"{key} ."))}


def test_a_folder_of_shards_is_read(tmp_path):
    encoded = write_image(tmp_path / "a.jpg")
    for number, keys in enumerate((("a", "b"), ("c",), ("a",))):
        write_shard(tmp_path / "mine" / f"{number:03}.tar", captioned(encoded, *keys))
    (tmp_path / "mine" / "README.md").write_text("my shards")
    rows = rows_of(open_source("webdataset", tmp_path / "mine"))
    assert rows[0] == SourceRow(
        image=encoded,
        file="000/a.jpg",
        image_id="mine/000/a",
        source="mine",
        label=None,
        split=None,
        captions_en=["a ."],
        given={},
    )
    assert [row["image_id"] for row in rows[1:]] == ["mine/000/b", "mine/001/c", "mine/002/a"]


def test_a_pattern_chooses_shards(tmp_path):
    encoded = write_image(tmp_path / "a.jpg")
    for name in ("my set/a-0.tar", "my set/a-1.tgz", "my set/b-0.tar"):
        write_shard(tmp_path / name, captioned(encoded, "x"), "w:gz" if name.endswith("tgz") else "w")
    rows = rows_of(open_source("webdataset", f"{tmp_path}/my set/a-*,captions=txt"))
    assert [row["image_id"] for row in rows] == ["my set/a-0/x", "my set/a-1/x"]
    with pytest.raises(UserError, match="c-"):
        open_source("webdataset", f"{tmp_path}/my set/c-*.tar")
    (tmp_path / "my set").rename(tmp_path / "set [v1]")
    for place in ("set [v1]/a-*.t[ag][rz]", "set [[]v1]/a-*", "set*/a-*", "set [v1]"):
        assert len(rows_of(open_source("webdataset", f"{tmp_path}/{place},captions=txt"))) >= 2


def test_files_beside_the_shards_of_a_pattern_do_not_matter(tmp_path):
    write_shard(tmp_path / "a.tar", {"a.png": write_image(tmp_path / "image.png"), "a.txt": "a road ."})
    (tmp_path / "._a.tar").write_bytes(b"left by another system")
    (tmp_path / "unrelated").symlink_to("/usr")
    build_corpus([f"webdataset={tmp_path}/*.tar"], tmp_path / "out")


def test_hidden_files_of_a_folder_of_shards_do_not_matter(tmp_path):
    write_shard(tmp_path / "mine" / "a.tar", captioned(write_image(tmp_path / "image.png"), "x"))
    (tmp_path / "mine" / "._a.tar").write_bytes(b"left by another system")
    write_shard(tmp_path / "mine" / ".trash" / "b.tar", captioned(write_image(tmp_path / "image.png"), "y"))
    assert len(rows_of(open_source("webdataset", tmp_path / "mine"))) == 1


@pytest.mark.parametrize(("content", "label"), [("river\n", "river"), ("7", "7"), (b"\xef\xbb\xbf7\r\n", "7")])
def test_a_class_is_a_name_or_a_number(tmp_path, content, label):
    files = captioned(write_image(tmp_path / "a.jpg"), "a") | {"a.cls": content}
    folder = write_shard(tmp_path / "mine" / "0.tar", files).parent
    (only,) = open_source("webdataset", f"{folder},label=cls").rows()
    assert only["label"] == label


def test_keys_and_files_that_are_not_used_are_noted_once(tmp_path, capsys):
    keys = {"text": "A road .", "pt": "Uma estrada .", "height": 5}
    files = {"a.jpg": write_image(tmp_path / "a.jpg"), "a.cls": "river", "a.json": keys}
    source = open_source("webdataset", write_shard(tmp_path / "mine" / "0.tar", files).parent)
    assert len(rows_of(source)) == len(rows_of(source)) == 1
    told = capsys.readouterr().err
    assert "note: mine: " in told and ": height, cls (" in told and told.count("\n") == 1


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    files = {"a.jpg": write_image(tmp_path / "a.jpg"), "a.txt": "A road .\r\n".encode("utf-8-sig")}
    (only,) = open_source("webdataset", write_shard(tmp_path / "mine" / "0.tar", files).parent).rows()
    assert only["captions_en"] == ["A road ."]


def test_names_of_shards_or_folders_state_the_splits(tmp_path):
    encoded = write_image(tmp_path / "a.jpg")
    for name in ("train/0.tar", "validation/0.tar", "test-0.tar", "more.tar"):
        write_shard(tmp_path / "mine" / name, captioned(encoded, "x"))
    found = {row["image_id"]: row["split"] for row in open_source("webdataset", tmp_path / "mine").rows()}
    assert found == {
        "mine/more/x": None,
        "mine/test-0/x": "test",
        "mine/train/0/x": "train",
        "mine/validation/0/x": "val",
    }
    rows = open_source("webdataset", tmp_path / "mine" / "train").rows()  # shards of train only state no split
    assert [row["split"] for row in rows] == [None]


def test_keys_of_json_are_columns_and_may_appear_late(tmp_path):
    encoded = write_image(tmp_path / "a.png")
    entries = [{"captions": "A ."}] * 7
    entries += [{"captions": ["B .", "C ."], "pt": ["B", None], "label": 3, "split": "test"}]
    files = {}
    for number, entry in enumerate(entries):
        files |= {f"{number}.png": encoded, f"{number}.json": entry}
    source = open_source("webdataset", write_shard(tmp_path / "mine" / "0.tar", files).parent)
    first, *_, last = source.rows()
    assert (first["captions_en"], first["given"]) == (["A ."], {"pt": [None]})
    assert (last["captions_en"], last["given"]) == (["B .", "C ."], {"pt": ["B", None]})
    assert (last["label"], last["split"], set(source.languages)) == ("3", "test", {"pt"})
    assert last["image"] == encoded


def test_options_name_the_image_and_the_keys(tmp_path):
    before, after = (write_image(tmp_path / "a.png", (0, 0, shade)) for shade in (1, 2))
    files = {"x.before.png": before, "x.after.png": after, "x.txt": "A .", "x.json": {"long": "B .", "kind": "sea"}}
    folder = write_shard(tmp_path / "mine" / "0.tar", files).parent
    with pytest.raises(UserError, match="image=SUFFIX.*before.png, after.png"):
        rows_of(open_source("webdataset", folder))
    (only,) = open_source("webdataset", f"{folder},image=after.png,captions=long,label=kind").rows()
    assert (only["image"], only["captions_en"], only["label"]) == (after, ["B ."], "sea")
    for options, culprit in (
        ("image=gif", "before.png, after.png"),
        ("image=after.png,label=none", "'none'.*kind"),
        ("image=after.png,captions=none", "'none'.*kind"),
    ):
        with pytest.raises(UserError, match=culprit):
            rows_of(open_source("webdataset", f"{folder},{options}"))


def test_text_is_the_caption_beside_json(tmp_path):
    encoded = write_image(tmp_path / "a.jpg")
    files = captioned(encoded, "x") | {"x.json": {"text": "another", "pt": "Um x."}}
    (only,) = open_source("webdataset", write_shard(tmp_path / "mine" / "0.tar", files).parent).rows()
    assert (only["captions_en"], only["given"]) == (["x ."], {"pt": ["Um x."]})


@pytest.mark.parametrize("suffix", ["png", "json", "JPG"])
def test_a_suffix_that_appears_after_the_first_samples_is_refused_by_name(tmp_path, suffix):
    """`load_dataset` drops the file: it takes the columns from five samples."""
    encoded = write_image(tmp_path / "a.jpg")
    keys = [str(number) for number in range(8)]
    write_shard(tmp_path / "mine" / "0.tar", captioned(encoded, *keys))
    late = captioned(encoded, "8") | {"8.txt": "A .", f"8.{suffix}": "{}"}
    write_shard(tmp_path / "mine" / "1.tar", late)
    with pytest.raises(UserError, match=rf"1.tar: sample 8 has a file \.{suffix}, .*\.jpg, \.txt"):
        rows_of(open_source("webdataset", tmp_path / "mine"))


def test_a_sample_may_lack_a_file(tmp_path):
    """The build counts it as a fault."""
    encoded = write_image(tmp_path / "a.jpg")
    files = captioned(encoded, "0") | {"1.txt": "A .", "2.jpg": encoded}
    _, without_image, without_caption = open_source(
        "webdataset", write_shard(tmp_path / "mine" / "0.tar", files).parent
    ).rows()
    assert without_image["image"] is None and without_caption["captions_en"] == [None]


@pytest.mark.parametrize(
    ("files", "culprit"),
    [
        ({"b.json": "{"}, "0.tar: b.json"),
        ({"b.json": b"\xff\xfe"}, "0.tar: b.json"),
        ({"b.json": "[" * 100_000}, "0.tar: b.json"),
        ({"b.json": "[1]"}, "0.tar: b.json"),
        ({"b.json": {"captions": 3}}, "0.tar: b .*'captions'"),
    ],
)
def test_a_damaged_sample_is_named(tmp_path, files, culprit):
    first = {"a.jpg": write_image(tmp_path / "a.jpg"), "a.json": {"captions": "A ."}}
    write_shard(tmp_path / "mine" / "0.tar", first | files)
    with pytest.raises(UserError, match=culprit):
        rows_of(open_source("webdataset", tmp_path / "mine"))


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_shard_is_named(tmp_path, content):
    shard = write_shard(tmp_path / "mine" / "0.tar", captioned(write_image(tmp_path / "a.jpg"), "a"))
    shard.write_bytes(shard.read_bytes()[:700] if content is None else content)
    with pytest.raises(UserError, match=str(shard)):
        rows_of(open_source("webdataset", tmp_path / "mine"))


@pytest.mark.parametrize("damage", [lambda c: c[:2100], lambda c: c[:2048] + b"\1" * 512 + c[2560:]])
def test_a_shard_that_is_cut_or_damaged_after_some_samples_is_named(tmp_path, damage):
    """`tarfile` takes a damaged header for the end of the archive."""
    files = captioned(write_image(tmp_path / "a.png"), "a", "b")  # four blocks of 512 bytes for each sample
    shard = write_shard(tmp_path / "mine" / "0.tar", files)
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(UserError, match=rf"{shard}.* a\b"):
        rows_of(open_source("webdataset", tmp_path / "mine"))


def test_files_of_other_suffixes_are_not_decoded(tmp_path):
    files = captioned(write_image(tmp_path / "a.jpg"), "a") | {"a.pth": b"no weights", "a.npy": b"no array"}
    (only,) = open_source("webdataset", write_shard(tmp_path / "mine" / "0.tar", files).parent).rows()
    assert only["captions_en"] == ["a ."]


def test_a_folder_without_shards_or_captions_is_refused(tmp_path):
    with pytest.raises(UserError, match=tmp_path.name):
        open_source("webdataset", tmp_path)
    write_shard(tmp_path / "0.tar", {"a.jpg": write_image(tmp_path / "a.jpg"), "a.cls": "3"})
    with pytest.raises(UserError, match="'captions' or 'text'.*cls"):
        rows_of(open_source("webdataset", tmp_path))
