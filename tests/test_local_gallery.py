"""The gallery of a Space on this machine: folders, corpora and indexes."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.eval import build_index
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_sources import open_source
from rsmclip.eval.models import load_embedder
from rsmclip.hub import handler
from rsmclip.hub.local_gallery import IndexGallery, open_gallery
from rsmclip.hub.space.gallery import Unreadable
from rsmclip.models.folder import save_model_folder


@pytest.fixture(autouse=True)
def no_kept_indexes(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(build_index, "KEPT", tmp_path / "indexes")


@pytest.fixture
def model(model_folder) -> str:
    return str(model_folder)


@pytest.fixture
def folder(tmp_path, corpus) -> Path:
    place = tmp_path / "my pictures"
    (place / "a b").mkdir(parents=True)
    for number, row in enumerate(corpus["test"].select(range(8))):
        (place / ("a b" if number % 2 else "") / f"{number}.JPG").write_bytes(row["image"]["bytes"])
    (place / "broken.jpg").write_bytes(b"no image")
    (place / "notes.txt").write_text("no image")
    return place


@pytest.fixture
def never_embeds(monkeypatch):
    return lambda: monkeypatch.setattr(Embedder, "run", lambda *_: pytest.fail("it embeds again"))


def make_index(source: str, model: str, output: Path, split: str | None = None, **tiles: int) -> str:
    build_index.build_index(open_source(source, split), load_embedder(model), output, model, **tiles)
    return str(output)


def test_a_folder_without_captions_is_a_gallery(folder, model, capsys):
    gallery = open_gallery(str(folder), model)
    entries = [gallery.entry(place) for place in range(len(gallery))]
    assert gallery.name == "my pictures" and not gallery.tiles
    assert {entry.name for entry in entries} == {f"{n}.JPG" for n in (0, 2, 4, 6)} | {
        f"a b/{n}.JPG" for n in (1, 3, 5, 7)
    }
    assert not any(entry.captions or entry.label or entry.details for entry in entries)
    assert "broken.jpg" in capsys.readouterr().err
    files = [(folder / entry.name).read_bytes() for entry in entries]
    assert [gallery.content(place) for place in range(8)] == files
    embeds = handler.EndpointHandler(model).embed_images(map(handler.open_image, files))
    np.testing.assert_allclose(gallery.embeds, embeds, atol=1e-5)
    assert len(set(gallery.examples(["harbour"], 5))) == 5


def test_a_known_gallery_is_not_embedded_again(folder, model, never_embeds):
    before = open_gallery(str(folder), model)
    never_embeds()
    after = open_gallery(str(folder), model)
    assert np.array_equal(before.embeds, after.embeds) and isinstance(after.embeds, np.memmap)
    assert before.key != after.key  # of another server: a browser may have kept images of the first


def test_a_corpus_has_captions_and_labels_and_its_test_split_is_usual(corpus_folder, corpus, model):
    gallery = open_gallery(str(corpus_folder), model)
    assert gallery.name == "tiny (test)" and len(gallery) == 36
    for place in (0, 20, 35):
        entry = gallery.entry(place)
        (row,) = [row for row in corpus["test"] if row["image_id"] == entry.name]
        assert entry.label == row["label"] and entry.captions["ko"] == row["captions"]["ko"][0]
        assert gallery.content(place) == row["image"]["bytes"]
    assert len(open_gallery(str(corpus_folder), model, "val")) == 18


def test_a_corpus_without_a_test_split_is_shown_whole(corpus, model, tmp_path):
    DatasetDict(a=corpus["val"], b=corpus["test"]).save_to_disk(tmp_path / "two")
    gallery = open_gallery(str(tmp_path / "two"), model)
    assert gallery.name == "two" and len(gallery) == 18 + 36
    names = [row["image_id"] for split in ("val", "test") for row in corpus[split]]
    assert [gallery.entry(place).name for place in range(54)] == names


def test_an_index_is_opened_as_it_is(corpus_folder, folder, model, tmp_path, never_embeds):
    whole = make_index(str(corpus_folder), model, tmp_path / "whole", "val")
    files = make_index(str(folder), model, tmp_path / "files")
    (folder / "later.jpg").write_bytes((folder / "0.JPG").read_bytes())
    never_embeds()
    gallery = open_gallery(whole, model)
    assert (gallery.name, len(gallery)) == ("tiny (val)", 18) and gallery.entry(3).captions
    gallery = open_gallery(files, model)
    assert (gallery.name, len(gallery)) == ("my pictures", 8)


def test_an_index_of_another_model_and_a_split_without_a_corpus_are_refused(folder, model, tiny_processor, tmp_path):
    index = make_index(str(folder), model, tmp_path / "index")
    other = load_embedder(model).model
    other.logit_scale.data += 1
    save_model_folder(other, tiny_processor, tmp_path / "other")
    with pytest.raises(UserError, match="other"):
        open_gallery(index, str(tmp_path / "other"))
    for gallery in (index, str(folder)):
        with pytest.raises(UserError, match="'test'"):
            open_gallery(gallery, model, "test")
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="my pictures"):
        open_gallery(index, model)
    (tmp_path / "index" / "index.json").write_text("{")
    with pytest.raises(UserError, match="index.json"):
        open_gallery(index, model)


def test_images_that_are_gone_or_damaged_are_unreadable_and_still_named(folder, model):
    gallery = open_gallery(str(folder), model)
    places = {gallery.entry(place).name: place for place in range(8)}
    (folder / "0.JPG").unlink()
    (folder / "2.JPG").write_bytes(b"\xff\xd8\xff damaged")
    with pytest.raises(Unreadable):
        gallery.content(places["0.JPG"])
    for name in ("0.JPG", "2.JPG"):
        with pytest.raises(Unreadable):
            gallery.image(places[name])
        assert gallery.entry(places[name]).name == name


def test_a_corpus_that_has_changed_lends_no_captions_to_other_images(corpus, corpus_folder, model):
    gallery = open_gallery(str(corpus_folder), model)
    changed = DatasetDict(test=corpus["test"].select(range(5, 30)))
    gallery = IndexGallery("tiny", gallery.index, replace(gallery.source, corpus=changed))
    for place in (0, 20, 30):
        assert gallery.entry(place).name == corpus["test"][place]["image_id"] and not gallery.entry(place).captions
        with pytest.raises(Unreadable, match=gallery.entry(place).name):
            gallery.image(place)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_a_browser_turns_its_file(folder, model, orientation):
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6) * 5).convert("RGB").resize((60, 80), 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    (folder / "0.JPG").write_bytes(buffer.getvalue())
    gallery = open_gallery(str(folder), model)
    shown = gallery.image([gallery.entry(place).name for place in range(8)].index("0.JPG"))
    expected = handler.open_image(buffer.getvalue())
    assert shown.size == expected.size and np.array_equal(shown, expected)
    assert shown.getexif().get(0x0112, 1) == 1  # it is not turned again


@pytest.mark.skipif(os.name == "nt", reason="file names of bytes")
def test_a_name_that_is_not_utf_8_can_be_sent(folder, model):
    shutil.copyfile(folder / "0.JPG", os.fsencode(folder) + b"/caf\xe9\n.jpg")
    gallery = open_gallery(str(folder), model)
    (name,) = [gallery.entry(place).name for place in range(9) if gallery.entry(place).name.startswith("caf")]
    assert name.encode().isascii() and "\n" not in name


def test_tiles_show_their_window_and_where_they_are(model, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 160), np.uint8)
    place = rasterio.transform.from_origin(-9.2, 38.8, 0.001, 0.001)
    (tmp_path / "scenes").mkdir()
    options = {"driver": "GTiff", "width": 160, "height": 96, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(tmp_path / "scenes" / "a.tif", "w", crs="EPSG:4326", transform=place, **options) as file:
        file.write(pixels)
    gallery = open_gallery(make_index(str(tmp_path / "scenes"), model, tmp_path / "index", tile=64, stride=32), model)
    assert gallery.tiles and len(gallery) == 4 * 2
    entry = gallery.entry(5)
    assert (entry.name, entry.details) == ("a.tif", ("x 32–96, y 32–96", "38.73600, -9.13600"))
    assert gallery.content(5) is None
    assert np.array_equal(np.asarray(gallery.image(5)).transpose(2, 0, 1), pixels[:, 32:96, 32:96])
