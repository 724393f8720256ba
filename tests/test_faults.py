"""Faults: what makes a row unusable is found and told, and images are stored as they should be."""

import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from rsmclip.core.images import FORMATS, IMAGE_ERRORS, open_encoded
from rsmclip.data import faults as module
from rsmclip.data.audit.same_picture import make_thumbnail
from rsmclip.data.faults import encode_image, fault_table, find_fault
from rsmclip.data.sources import SourceError, SourceRow
from rsmclip.eval import embed as evaluation
from rsmclip.hub import handler
from rsmclip.training import batches as training


def write_image(path: Path, colour: tuple[int, int, int] = (10, 200, 30)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), colour).save(path)
    return path.read_bytes()


def row(**changes) -> SourceRow:
    usable = SourceRow(
        image=b"bytes", file="a.jpg", image_id="made/a", source="made", label=None, split="train", captions_en=["A."]
    )
    return usable | changes


def test_a_usable_row_has_no_fault():
    assert find_fault(row(), set()) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_id": "made/seen"}, "duplicate id"),
        ({"split": "valid"}, "unknown split"),
        ({"captions_en": []}, "no captions"),
        ({"captions_en": ["A.", "  "]}, "empty caption"),
        ({"captions_en": [3]}, "empty caption"),
        ({"image": None}, "image missing"),
        ({"captions_en": ["half of \ud83d"]}, "text that is no Unicode"),
    ],
)
def test_every_fault_of_a_row_is_found(changes, problem):
    fault = find_fault(row(**changes), {"made/seen"})
    assert fault.problem == problem and fault.image_id == row(**changes)["image_id"]


def test_the_table_counts_all_faults_and_lists_the_first():
    faults = [find_fault(row(image_id=f"made/{n}", image=None), set()) for n in range(30)]
    faults.append(find_fault(row(split="valid"), set()))
    lines = fault_table(faults).splitlines()
    assert lines[0] == "31 unusable rows (image missing: 30, unknown split: 1)"
    assert lines[1].split() == ["problem", "image", "where"] and lines[2].split()[-2:] == ["made/0", "a.jpg"]
    assert lines[-1].strip() == "… and 11 more" and len(lines) == 1 + 1 + 20 + 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_jpeg_and_png_are_kept_byte_for_byte(tmp_path, suffix):
    encoded = write_image(tmp_path / f"a.{suffix}")
    assert encode_image(encoded) == encoded


def test_a_tiff_becomes_a_png_of_the_same_pixels(tmp_path):
    image = Image.effect_noise((16, 12), 60).convert("RGB")
    image.save(tmp_path / "a.tif")
    stored = Image.open(io.BytesIO(encode_image((tmp_path / "a.tif").read_bytes())))
    assert stored.format == "PNG" and stored.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_more_than_8_bits_a_channel_are_refused(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "TIFF")
    with pytest.raises(SourceError, match="not of 8 bits a channel"):
        encode_image(buffer.getvalue())


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_half_an_image_is_undecodable(tmp_path, suffix):
    Image.effect_noise((64, 64), 60).save(tmp_path / f"a.{suffix}")
    encoded = (tmp_path / f"a.{suffix}").read_bytes()
    for damaged in (encoded[: len(encoded) // 2], b"", b"no image"):
        with pytest.raises(SourceError, match="undecodable"):
            encode_image(damaged)


def test_names_with_line_ends_keep_the_table_in_shape():
    lines = fault_table([find_fault(row(image_id="made/a\nb", image=None), set())]).splitlines()
    assert len(lines) == 3 and "made/a b" in lines[2]


def test_a_corpus_holds_known_formats_only():
    """Of EPS Pillow has Ghostscript make a picture."""
    picture = Image.new("RGB", (9, 9))
    for image_format in FORMATS:
        buffer = io.BytesIO()
        picture.save(buffer, image_format)
        assert open_encoded(buffer.getvalue()).size == (9, 9)
    for image_format in ("EPS", "ICO", "TGA", "PCX"):
        buffer = io.BytesIO()
        picture.save(buffer, image_format)
        with pytest.raises(OSError, match="cannot identify"):
            open_encoded(buffer.getvalue())


def test_a_picture_of_too_many_pixels_is_a_fault_wherever_it_is_read(monkeypatch):
    """Of 180 million; Pillow counts them before it decodes them, and no reader of a corpus ends because of it."""
    buffer = io.BytesIO()
    Image.new("RGB", (123, 123)).save(buffer, "PNG")
    content = buffer.getvalue().replace(struct.pack(">II", 123, 123), struct.pack(">II", 18_000, 10_000))
    bomb = content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(SourceError, match="undecodable"):
        encode_image(bomb)
    with pytest.raises(ValueError, match="image a/b cannot be decoded: Image size \\(180000000 pixels\\) exceeds"):
        evaluation.decode_image({"bytes": bomb, "path": None}, "a/b")
    for read in (lambda: training.decode_image(bomb, 64), lambda: make_thumbnail(bomb)):
        with pytest.raises(IMAGE_ERRORS):  # which makes another row take its place, and the audit name it
            read()


def test_a_picture_that_would_take_hours_or_grow_is_a_fault():
    """Models bring the short side to their size; a JPEG's scans each decode the whole picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 51)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="1 × 51 pixels; a side may be 50 times the other"):
        open_encoded(buffer.getvalue())
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    assert open_encoded(content).size == (64, 64)
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="a JPEG of more than 50 scans"):
        open_encoded(content[:-2] + 41 * scan + content[-2:])
    video = random.Random(0).randbytes(5_000_000)  # as phones put behind a picture
    assert video.count(b"\xff\xda") > 50 and open_encoded(content + video).size == (64, 64)


def broken_tiff() -> bytes:
    """A TIFF that says of the place of its pixels that it is text; Pillow raises a `TypeError`."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "TIFF")
    place = struct.pack("<HH", 273, 4)
    assert buffer.getvalue().count(place) == 1
    return buffer.getvalue().replace(place, struct.pack("<HH", 273, 2))


def test_a_tiff_with_fields_of_another_type_is_a_fault_wherever_it_is_read():
    content = broken_tiff()
    with pytest.raises(SourceError, match="undecodable"):
        encode_image(content)
    with pytest.raises(ValueError, match="image a/b cannot be decoded"):
        evaluation.decode_image({"bytes": content, "path": None}, "a/b")
    with pytest.raises(handler.InputError, match="damaged"):
        handler.open_image(content)
    for read in (lambda: training.decode_image(content, 64), lambda: make_thumbnail(content)):
        with pytest.raises(IMAGE_ERRORS):
            read()


def test_corpora_and_the_endpoint_have_the_same_limits():
    """The handler travels alone, so it has its own copy of them."""
    for name in ("IMAGE_ERRORS", "MAX_RATIO", "MAX_SCANS", "JPEG_SCAN"):
        assert getattr(module, name) == getattr(handler, name), name
    assert set(handler.FORMATS) == set(FORMATS) - {"PPM"}
