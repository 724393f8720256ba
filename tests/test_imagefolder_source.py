"""Folders of images with a CSV or JSON Lines file: columns, lines of one image, splits, and what is not used."""

import pytest

from rsmclip.core.errors import UserError
from rsmclip.data.sources import open_source
from tests.image_folders import image_folder, rows_of, write_csv, write_image


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
    assert (second["image"], second["captions_en"], second["split"]) == (None, ["C."], None)


@pytest.mark.parametrize(
    ("entry", "culprit"),
    [
        ({"text": "A."}, "'file_name'"),
        ({"file_name": 3, "text": "A."}, "'file_name'"),
        ({"file_name": "../a.png", "text": "A."}, "'../a.png'"),
        ({"file_name": "a.png", "captions": {"a": 1}}, "'captions'"),
        ({"file_name": "a.png", "captions": 5}, "'captions'"),
        ({"file_name": "a.png", "text": "['a road', 'a field']"}, "'text'"),
        ({"file_name": "a.png", "text": ["A.", "B."], "pt": ["C."]}, "'pt'.*'text'"),
    ],
)
def test_a_malformed_metadata_line_is_named(tmp_path, entry, culprit):
    image_folder(tmp_path, {"file_name": "b.png", "text": "A."}, entry)
    with pytest.raises(UserError, match=f"line 2.*{culprit}"):
        rows_of(open_source("imagefolder", tmp_path))


def test_metadata_in_csv_is_read_with_one_or_several_lines_an_image(tmp_path):
    root = tmp_path / "mine"
    lines = [("a.png", "A, with a comma.", "test", "river"), ("a.png", "B.", "test", "river"), ("b.png", "C.", "", "")]
    write_csv(root / "metadata.csv", "file_name,text,split,label", *lines)
    first, second = open_source("imagefolder", root).rows()
    assert (first["captions_en"], first["split"], first["label"]) == (["A, with a comma.", "B."], "test", "river")
    assert (second["captions_en"], second["split"], second["label"]) == (["C."], None, None)


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (b"file_name,text\na.png,for\xeat\n", "metadata.csv, line 2 .*CSV UTF-8"),
        (b"\xef\xbb\xbffile_name,text\na.png,A\nb.png,for\xeat\n", "metadata.csv, line 3 .*CSV UTF-8"),
        ("file_name\ttext\na.png\tA\n".encode("utf-16"), "metadata.csv is in UTF-16.*CSV UTF-8"),
        (b"file_name;text\na.png;A.\n;A road.\n", "metadata.csv, line 3.*'file_name' is empty"),
        (b"name,text\na.png,A\n", "'file_name'.*image=COLUMN.*name, text"),
        (b"file_name\na.png\n", "'text'.*captions=COLUMN.*file_name"),
        (b"file_name,text,text\na.png,A,B\n", "metadata.csv, line 1.*'text'"),
        (b"file_name,text\n", "metadata.csv"),
        (b'file_name,text\na.png,"A\nb.png,B\n', "metadata.csv, line 2"),
        (b'file_name,text\na.png,"A" B\n', "metadata.csv, line 2"),
        (b"file_name,text\na.png,A river, and a bridge.\n", "metadata.csv, line 2"),
        (b"file_name,text\na.png,A.\nb.png\n", "metadata.csv, line 3"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, content, culprit):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=culprit):
        rows_of(open_source("imagefolder", tmp_path))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("between", [";", "\t", ", ", "; "])
def test_a_csv_may_be_separated_as_excel_does_in_any_country(tmp_path, between, ends):
    lines = (("file_name", "text", "label"), ("a.png", '"A, road; wide."', "river"))
    (tmp_path / "metadata.csv").write_bytes(ends.join(map(between.join, lines)).encode())
    (only,) = open_source("imagefolder", tmp_path).rows()
    assert (only["image_id"], only["captions_en"]) == (f"{tmp_path.name}/a", ["A, road; wide."])
    assert only["label"] == "river"


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ('file_name,"text;more;of;it"\na.png,A road.\n', "A road."),  # signs in a quoted name of a column
        ('file_name,text\na.png, "old" houses\n', ' "old" houses'),
        ("sep=;\r\nfile_name;text\r\na.png;A road, wide.\r\n", "A road, wide."),
    ],
)
def test_quotes_spaces_and_a_stated_separator_of_a_csv_are_read(tmp_path, content, captions):
    (tmp_path / "metadata.csv").write_text(content, newline="")
    place = f"{tmp_path},captions=text;more;of;it" if "more" in content else tmp_path
    (only,) = open_source("imagefolder", place).rows()
    assert only["captions_en"] == [captions]


def test_empty_rows_of_a_spreadsheet_are_left_out_and_count_as_lines(tmp_path):
    (tmp_path / "metadata.csv").write_text(";;\nfile_name;text;\na.png;A.;\n;;\n ; \nb.png;B.;\n;;;\n")
    rows = rows_of(open_source("imagefolder", tmp_path))
    assert [row["captions_en"] for row in rows] == [["A."], ["B."]]
    assert rows[1]["places"] == ["metadata.csv, line 6"]


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("sub\\a.png", "sub/a.png"),
        ("sub/a.PNG", "sub/a.png"),
        ("SUB/a", "sub/a.png"),
        ("sub/a.tif", "sub/a.png"),
        ("v1.5", "v1.5.JPG"),
        ("v1.jpg", None),
        ("a.png", None),
    ],
)
def test_a_missing_image_is_named_with_the_file_that_the_folder_has_instead(tmp_path, name, similar):
    write_image(tmp_path / "sub" / "a.png")
    write_image(tmp_path / "v1.5.JPG")
    write_csv(tmp_path / "metadata.csv", "file_name,text", (name, "A."))
    [row] = rows_of(open_source("imagefolder", tmp_path))
    assert row["image"] is None and (f"has {similar!r}" in row["file"] if similar else " has " not in row["file"])


@pytest.mark.parametrize(
    ("header", "options", "unused"),
    [
        ("file_name,english,Portuguese,PT,pt-BR,", ",captions=english", "Portuguese, PT, pt-BR "),
        ("file_name,text,class,,pt,split", "", "class "),
        ("file_name,text,class,label,split,en", ",captions=en,label=class", "text, label "),
        ("file_name,text,label,split,pt,", "", None),
    ],
)
def test_columns_that_are_not_used_are_noted_once(tmp_path, capsys, header, options, unused):
    for folder in ("train", "test"):
        line = ["a.png", *("" if name == "split" else "A." for name in header.split(",")[1:])]
        write_csv(tmp_path / folder / "metadata.csv", header, tuple(line))
    source = open_source("imagefolder", f"{tmp_path}{options}")
    assert len(rows_of(source)) == len(rows_of(source)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == (1 if unused else 0)
    if unused:
        assert f": {unused}(" in told and all(advice in told for advice in ("pt", "label=COLUMN", "captions=COLUMN"))


def test_lines_that_equal_another_line_are_counted_in_a_note_and_kept(tmp_path, capsys):
    lines = [("a.png", "A."), ("b.png", "A."), ("a.png", "A."), ("a.png", "B."), ("a.png", "A.")]
    write_csv(tmp_path / "metadata.csv", "file_name,text", *lines)
    first, second = open_source("imagefolder", tmp_path).rows()
    assert (first["captions_en"], second["captions_en"]) == (["A.", "A.", "B.", "A."], ["A."])
    told = capsys.readouterr().err
    assert ": 2 lines" in told and "metadata.csv, line 4" in told and told.count("\n") == 1


def test_a_stated_separator_counts_as_a_line(tmp_path):
    (tmp_path / "metadata.csv").write_text("sep=;\nfile_name;text\na.png;A road; wide.\n")
    with pytest.raises(UserError, match="line 3"):
        rows_of(open_source("imagefolder", tmp_path))


def test_the_sign_that_needs_quotes_is_named(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name;text\na.png;A road; wide.\n")
    with pytest.raises(UserError, match="line 2.*';'"):
        rows_of(open_source("imagefolder", tmp_path))


def test_files_of_an_image_folder_that_are_not_used_are_noted_once(tmp_path, capsys):
    for name in ("a.png", "b.png", "train/c.jpg", "d.txt", "._e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    image_folder(tmp_path, {"file_name": "./a.png", "text": "A."}, {"file_name": "train/c.jpg", "text": "C."})
    write_csv(tmp_path / "metadata.csv", "file_name,text", ("a.png", "A."), ("b.png", "B."))
    assert len(rows_of(open_source("imagefolder", tmp_path))) == 2
    told = capsys.readouterr().err
    assert "metadata.csv" in told and ": 1 (b.png)" in told and told.count("\n") == 1
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "b.png").unlink()
    assert len(rows_of(open_source("imagefolder", tmp_path))) == 2 and capsys.readouterr().err == ""


def test_splits_may_be_folders(tmp_path):
    root = tmp_path / "mine"
    for folder in ("train", "validation", "test"):
        (root / folder).mkdir(parents=True)
        image_folder(root / folder, {"file_name": "a.png", "text": folder})
    encoded = write_image(root / "validation" / "a.png")
    rows = rows_of(open_source("imagefolder", root))
    assert [row["image_id"] for row in rows] == ["mine/train/a", "mine/validation/a", "mine/test/a"]
    assert [row["split"] for row in rows] == ["train", "val", "test"]
    assert rows[1]["image"] == encoded


@pytest.mark.parametrize("name", ["valid", "dev"])
def test_a_folder_may_have_any_name_of_a_split(tmp_path, capsys, name):
    for folder in ("train", name):
        write_image(tmp_path / folder / "a.png")
        image_folder(tmp_path / folder, {"file_name": "a.png", "text": folder})
    rows = rows_of(open_source("imagefolder", tmp_path))
    assert [row["split"] for row in rows] == ["train", "val"] and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train/1.png", "./valid/2.png", "test/x/3.png", "more/test/4.png"), ["train", "val", "test", None]),
        (("train/1.png", "plane/2.png"), [None, None]),  # as shards or a dataset of `train` only
    ],
)
def test_the_folder_of_an_image_states_its_split_in_a_table_of_all_images(tmp_path, names, splits):
    write_csv(tmp_path / "captions.csv", "file_name,text", *((name, "A.") for name in names))
    assert [row["split"] for row in open_source("imagefolder", tmp_path).rows()] == splits


def test_the_column_split_comes_before_the_folder(tmp_path):
    lines = [("train/1.png", "A.", "test"), ("test/2.png", "B.", "")]
    write_csv(tmp_path / "metadata.csv", "file_name,text,split", *lines)
    assert [row["split"] for row in open_source("imagefolder", tmp_path).rows()] == ["test", "test"]


def test_images_without_a_line_are_counted_and_the_first_are_named(tmp_path, capsys):
    for number in range(6):
        write_image(tmp_path / "mine" / "sub" / f"{number}.png")
    image_folder(tmp_path / "mine", {"file_name": "sub/2.png", "text": "A."})
    assert len(rows_of(open_source("imagefolder", tmp_path / "mine"))) == 1
    assert ": 5 (sub/0.png, sub/1.png, sub/3.png, …)" in capsys.readouterr().err


def test_options_name_the_columns_of_the_only_table(tmp_path):
    root = tmp_path / "tiles, 2024"
    lines = [("x/a.png", "A .", "river", "dev"), ("x/b.png", "B .", "", ""), ("./x/a.png", "C .", "river", "")]
    write_csv(root / "my captions.CSV", "picture,what is seen,kind,part", *lines)
    options = ",image=picture,captions=what is seen,label=kind,split=part"
    first, second = open_source("imagefolder", f"{root}{options}").rows()
    assert (first["image_id"], first["captions_en"]) == ("tiles, 2024/x/a", ["A .", "C ."])
    assert (first["label"], first["split"]) == ("river", "val")
    assert (second["image_id"], second["captions_en"], second["label"]) == ("tiles, 2024/x/b", ["B ."], None)
    assert first["given"] == {} and second["split"] is None


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (",size=x", "'size'.*captions, image, label, split"),
        (",captions=text,captions=text", "captions"),
        (",captions=legend", "'legend'.*file_name, text"),
        (",image=picture", "'picture'.*file_name, text"),
        (",label=kind", "'kind'.*label=COLUMN"),
        (",split=part", "'part'.*split=COLUMN"),
        (",captions=pt", "'pt'"),
    ],
)
def test_an_option_that_names_no_column_is_refused(tmp_path, options, culprit):
    write_csv(tmp_path / "metadata.csv", "file_name,text", ("a.png", "A."))
    with pytest.raises(UserError, match=culprit):
        rows_of(open_source("imagefolder", f"{tmp_path}{options}"))


def test_columns_named_by_language_are_aligned_by_line_and_empty_cells_are_null(tmp_path):
    lines = [("a.png", "A road .", "Uma estrada .", ""), ("b.png", "", "Um rio", ""), ("a.png", "B", "", "路")]
    write_csv(tmp_path / "metadata.csv", "file_name,en,pt,zh", *lines)
    source = open_source("imagefolder", tmp_path)
    first, second = source.rows()
    assert first["captions_en"] == ["A road .", "B"]
    assert first["given"] == {"en": ["A road .", "B"], "pt": ["Uma estrada .", ""], "zh": ["", "路"]}
    assert second["given"] == {"en": [""], "pt": ["Um rio"], "zh": [""]}
    assert set(source.languages) == {"en", "pt", "zh"}


def test_lists_of_json_lines_are_aligned_and_missing_languages_are_null(tmp_path):
    lines = [
        {"file_name": "a.png", "text": "A.", "pt": "A."},
        {"file_name": "a.png", "captions": ["B.", "C."], "ko": ["B", None]},
    ]
    image_folder(tmp_path, *lines)
    (only,) = open_source("imagefolder", tmp_path).rows()
    assert only["captions_en"] == ["A.", "B.", "C."]
    assert only["given"] == {"pt": ["A.", None, None], "ko": [None, "B", None]}


def test_without_an_english_column_there_are_no_english_captions(tmp_path):
    write_csv(tmp_path / "metadata.csv", "file_name,pt", ("a.png", "Um rio"))
    (only,) = open_source("imagefolder", tmp_path).rows()
    assert only["captions_en"] is None and only["given"] == {"pt": ["Um rio"]}


def test_two_columns_of_english_captions_are_refused(tmp_path):
    write_csv(tmp_path / "metadata.csv", "file_name,text,en", ("a.png", "A.", "B."))
    with pytest.raises(UserError, match="'text' and 'en'"):
        rows_of(open_source("imagefolder", tmp_path))
    (only,) = open_source("imagefolder", f"{tmp_path},captions=en").rows()
    assert only["captions_en"] == ["B."]


def test_a_list_in_a_cell_is_read_as_json(tmp_path):
    write_csv(tmp_path / "metadata.csv", "file_name,text", ("a.png", '["A, road.", "B."]'), ("b.png", "[A] road"))
    first, second = open_source("imagefolder", tmp_path).rows()
    assert (first["captions_en"], second["captions_en"]) == (["A, road.", "B."], ["[A] road"])


@pytest.mark.parametrize(("column", "value"), [("split", "test"), ("label", "lake")])
def test_lines_of_an_image_that_contradict_each_other_are_named(tmp_path, column, value):
    line = {"file_name": "a.png", "text": "A.", "split": "train", "label": "river"}
    image_folder(tmp_path, line, {"file_name": "b.png", "text": "B."}, line | {column: value})
    with pytest.raises(UserError, match=f"line 3: {column} is '{value}'.*line 1"):
        rows_of(open_source("imagefolder", tmp_path))


def test_one_table_is_read_and_several_are_refused(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"file_name": "a.png", "text": "A."}\n')
    assert len(rows_of(open_source("imagefolder", tmp_path))) == 1
    write_csv(tmp_path / "more.csv", "file_name,text", ("a.png", "A."))
    with pytest.raises(UserError, match=r"lines.jsonl, more.csv"):
        rows_of(open_source("imagefolder", tmp_path))
    write_csv(tmp_path / "metadata.csv", "file_name,text", ("b.png", "B."))
    assert [row["captions_en"] for row in open_source("imagefolder", tmp_path).rows()] == [["B."]]
