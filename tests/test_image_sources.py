"""The images of a folder or corpus: what is listed, in which order, and what is an error."""

import os

import pytest
from datasets import Dataset, DatasetDict, Image
from PIL import Image as Pillow

from rsmclip.core.errors import UserError
from rsmclip.data.demo.corpus import demo_card
from rsmclip.data.write import write_corpus
from rsmclip.eval.image_sources import CorpusSource, FolderSource, entry_image, open_source


def save_picture(path, color="red", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", size, color).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    """A folder with four images in three folders, two other files and hidden ones."""
    folder = tmp_path / "my tiles"
    for name in ("b.PNG", "a/2.jpg", "a/deep er/1.tiff", "é.webp", ".hidden.png", ".git/x.png", "a/._2.jpg"):
        save_picture(folder / name)
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "table.csv").write_text("no image")
    return folder


def test_images_of_all_folders_are_listed_in_the_order_of_their_paths(pictures):
    listing = open_source(str(pictures)).list()
    assert [picture.path for picture in listing.pictures] == ["a/2.jpg", "a/deep er/1.tiff", "b.PNG", "é.webp"]
    assert listing.others == 2 and not listing.left_out


def test_the_version_changes_with_size_or_time(pictures):
    source = open_source(str(pictures))
    before = source.list().pictures
    os.utime(pictures / "b.PNG", (1, 1))
    with (pictures / "a" / "2.jpg").open("ab") as file:
        file.write(b"more")
    os.utime(pictures / "a" / "2.jpg", ns=(0, int(before[0].version.partition("-")[2])))
    changed = [one.path for one, other in zip(before, source.list().pictures, strict=True) if one != other]
    assert changed == ["a/2.jpg", "b.PNG"]


def test_links_are_followed_once_and_a_link_to_nothing_is_left_out(pictures, tmp_path):
    save_picture(tmp_path / "elsewhere" / "c.png")
    (pictures / "linked").symlink_to(tmp_path / "elsewhere")
    (pictures / "a" / "up").symlink_to(pictures)
    (pictures / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    listing = open_source(str(pictures)).list()
    assert [picture.path for picture in listing.pictures if "c.png" in picture.path] == ["linked/c.png"]
    assert len(listing.pictures) == 5 and list(listing.left_out) == ["gone.jpg"]


def test_a_link_to_itself_and_a_pipe_are_left_out(pictures):
    (pictures / "self.png").symlink_to("self.png")
    os.mkfifo(pictures / "pipe.png")  # reading it would wait forever
    listing = open_source(str(pictures)).list()
    assert len(listing.pictures) == 4 and set(listing.left_out) == {"self.png", "pipe.png"}


def test_names_that_are_not_utf8_are_listed_and_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\n.png"
    with open(path, "wb") as file:
        Pillow.new("RGB", (8, 8), "red").save(file, "PNG")
    source = open_source(str(tmp_path))
    (picture,) = source.list().pictures
    assert entry_image(source, {"path": picture.path}).getpixel((0, 0)) == (255, 0, 0)


def test_a_corpus_is_listed_by_image_id_with_a_hash_of_each_image(corpus_folder, corpus):
    pictures = open_source(str(corpus_folder)).list().pictures
    assert [picture.path for picture in pictures] == [image for split in corpus for image in corpus[split]["image_id"]]
    source = open_source(str(corpus_folder), "test")
    pictures = source.list().pictures
    assert [(picture.split, picture.row) for picture in pictures] == [("test", row) for row in range(36)]
    assert len({picture.version for picture in pictures}) == 36
    assert source.read(*pictures[7][:1], "test", 7) == corpus["test"][7]["image"]["bytes"]


@pytest.mark.parametrize("ids", [None, [None, "", "a"], [7, 7, 8]])
def test_a_row_without_a_text_as_image_id_is_named_by_its_number(tmp_path, corpus, ids):
    rows = corpus["val"].remove_columns("image_id").select(range(3))
    DatasetDict(val=rows if ids is None else rows.add_column("image_id", ids)).save_to_disk(tmp_path / "plain")
    source = open_source(str(tmp_path / "plain"))
    names = ["val/0", "val/1", "a" if ids and "a" in ids else "val/2"]
    assert [picture.path for picture in source.list().pictures] == names
    assert source.read(names[2], "val", 2) == corpus["val"][2]["image"]["bytes"]


def test_a_folder_with_a_parquet_file_is_a_corpus_if_the_file_has_the_images(pictures, corpus):
    (pictures / "data").mkdir()
    (pictures / "README.md").write_text("my pictures")
    corpus["val"].remove_columns("image").to_parquet(pictures / "data" / "labels.parquet")
    assert isinstance(open_source(str(pictures)), FolderSource)
    (pictures / ".hidden").mkdir()
    corpus["val"].to_parquet(pictures / ".hidden" / "train.parquet")
    assert isinstance(open_source(str(pictures)), FolderSource)
    (pictures.parent / "tables").mkdir()
    corpus["val"].to_parquet(pictures.parent / "tables" / "train.parquet")
    save_picture(pictures.parent / "tables" / "preview.png")
    assert isinstance(open_source(str(pictures.parent / "tables")), CorpusSource)


def test_a_built_corpus_may_have_a_picture_beside_it(tmp_path, corpus):
    rows = [("val", row) for row in corpus["val"].select(range(2))]
    write_corpus(rows, corpus["val"].features, tmp_path / "built", False, demo_card)
    save_picture(tmp_path / "built" / "preview.png")
    assert len(open_source(str(tmp_path / "built")).list().pictures) == 2


def test_a_table_beside_a_link_to_pictures_is_no_corpus(tmp_path, pictures, corpus):
    (tmp_path / "linked").mkdir()
    corpus["val"].remove_columns("image").to_parquet(tmp_path / "linked" / "labels.parquet")
    (tmp_path / "linked" / "up").symlink_to(tmp_path)
    assert isinstance(open_source(str(tmp_path / "linked")), FolderSource)


def test_bad_sources_are_one_line(pictures, corpus_folder, corpus, tmp_path):
    with pytest.raises(UserError, match="no split 'test'"):
        open_source(str(pictures), "test")
    with pytest.raises(UserError, match="none"):
        open_source(str(corpus_folder), "none")
    with pytest.raises(UserError, match=r"b\.PNG"):
        open_source(str(pictures / "b.PNG"))
    rows = corpus["val"].select([0, 1, 1])
    twice = CorpusSource("twice", DatasetDict(val=rows))
    with pytest.raises(UserError, match=rows["image_id"][1]):
        twice.list()
    Dataset.from_dict({"text": ["no image"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(UserError, match="image"):
        open_source(str(tmp_path / "texts"))


@pytest.mark.parametrize("box", [None, [0, 0, 4, 4]])
def test_an_index_cannot_name_a_file_out_of_its_folder(pictures, tmp_path, box):
    save_picture(tmp_path / "private.png")
    source = open_source(str(pictures))
    for path in ("../private.png", "a/../../private.png", str(tmp_path / "private.png")):
        with pytest.raises(UserError, match="private.png"):
            entry_image(source, {"path": path} | ({"box": box} if box else {}))


def test_an_image_that_is_gone_is_an_error(pictures, corpus):
    source = open_source(str(pictures))
    (pictures / "b.PNG").unlink()
    with pytest.raises(UserError):
        entry_image(source, {"path": "b.PNG"})
    rows = corpus["val"].cast_column("image", Image(decode=False))
    source = CorpusSource("corpus", DatasetDict(val=rows))
    with pytest.raises(UserError, match="99"):
        source.read("x", "val", 99)
    for row, split in ((1, "val"), (0, "test")):  # another image, and no such split
        with pytest.raises(UserError, match=rows["image_id"][0]):
            source.read(rows["image_id"][0], split, row)
