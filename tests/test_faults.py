"""Faults: unusable rows are found and named; images keep their pixels."""

import inspect
import io
import random
import struct
import zlib

import pytest
from PIL import Image, ImageFile

from rsmclip.benchmarks import fuzz_images
from rsmclip.core import images
from rsmclip.core.errors import UserError
from rsmclip.core.images import FORMATS, IMAGE_ERRORS, decode_image, decode_rgb, open_encoded
from rsmclip.data.audit.same_picture import make_thumbnail
from rsmclip.data.faults import encode_image, fault_table, find_fault, without_empty_captions
from rsmclip.data.sources.protocol import SourceRow
from rsmclip.hub import handler


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def row(**changes) -> SourceRow:
    usable = SourceRow(
        image=b"bytes",
        file="a.jpg",
        image_id="made/a",
        source="made",
        label=None,
        split="train",
        captions_en=["A."],
        given={},
    )
    return usable | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"split": None},
        {"captions_en": None, "given": {"pt": ["Uma estrada."]}},
        {"captions_en": [None, "A."], "given": {"pt": ["Uma estrada.", None]}},
        {"captions_en": ["A.", "  "]},
    ],
)
def test_a_usable_row_has_no_fault(changes):
    assert find_fault(row(**changes), set()) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_id": "made/seen"}, "duplicate id"),
        ({"split": "valid"}, "unknown split"),
        ({"captions_en": []}, "no captions"),
        ({"captions_en": ["", None]}, "empty caption"),
        ({"captions_en": [3]}, "caption that is not text"),
        ({"captions_en": [["a"]]}, "caption that is not text"),
        ({"captions_en": None}, "no captions"),
        ({"captions_en": [None, "  "], "given": {"pt": [" ", ""]}}, "empty caption"),
        ({"given": {"pt": [3]}}, "caption that is not text"),
        ({"given": {"pt": ["half of \ud83d"]}}, "text that is not Unicode"),
        ({"image": None}, "image missing"),
        ({"captions_en": ["half of \ud83d"]}, "text that is not Unicode"),
    ],
)
def test_every_fault_of_a_row_is_found(changes, problem):
    fault = find_fault(row(**changes), {"made/seen"})
    assert fault.problem == problem and fault.image_id == row(**changes)["image_id"]


def test_captions_that_are_empty_in_all_languages_are_left_out_and_named_by_their_lines():
    given = {"pt": ["Um rio.", " ", None, None], "zh": ["", None, "路", ""]}
    whole = row(captions_en=[None, "", "A.", "B."], given=given, places=[f"a.csv, line {n}" for n in range(4)])
    left, faults = without_empty_captions(whole)
    assert left["captions_en"] == [None, "A.", "B."]
    assert left["given"] == {"pt": ["Um rio.", None, None], "zh": ["", "路", ""]}
    assert faults == [("empty caption", "made/a", "a.csv, line 1")]
    assert without_empty_captions(left) == (left, [])
    [fault] = without_empty_captions(row(captions_en=["A.", None]))[1]
    assert fault.place == "a.jpg" and "rows or captions" in fault_table([fault])


def test_the_table_counts_all_faults_and_lists_the_first():
    faults = [find_fault(row(image_id=f"made/a\n{n}", image=None), set()) for n in range(30)]
    faults.append(find_fault(row(split="valid"), set()))
    lines = fault_table(faults).splitlines()
    assert "31" in lines[0] and "image missing: 30, unknown split: 1" in lines[0]
    assert "image missing" in lines[1] and "made/a 0" in lines[1] and "a.jpg" in lines[1]
    assert "11" in lines[-1] and len(lines) == 1 + 20 + 1


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_jpeg_and_png_are_kept_byte_for_byte(image_format):
    encoded = encode(Image.new("RGB", (6, 5), (10, 200, 30)), image_format)
    assert encode_image(encoded) == encoded


def test_a_tiff_becomes_a_png_of_the_same_pixels():
    image = Image.effect_noise((16, 12), 60).convert("RGB")
    stored = Image.open(io.BytesIO(encode_image(encode(image, "TIFF"))))
    assert stored.format == "PNG" and stored.tobytes() == image.tobytes()


def test_a_tiff_keeps_its_transparency():
    image = Image.new("RGBA", (4, 4), (10, 200, 30, 0))
    encoded = encode(image, "TIFF")
    assert Image.open(io.BytesIO(encode_image(encoded))).tobytes() == image.tobytes()
    assert decode_rgb(encode_image(encoded)).tobytes() == decode_rgb(encoded).tobytes()


def test_a_tiff_with_a_number_as_color_profile_is_stored():
    tags = [*fuzz_images.picture_tags(8, 4, 4), (34675, 4, 1, 7)]
    assert Image.open(io.BytesIO(encode_image(fuzz_images.tiff(tags)))).size == (4, 4)


def png_16() -> bytes:
    """A PNG of 4 × 4 pixels with three channels of 16 bits, which Pillow cannot write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(100)))]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def tiff_16() -> bytes:
    """A TIFF of 4 × 4 pixels with three channels of 16 bits."""
    tags = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, 96)]
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8) + table + struct.pack("<3H", 16, 16, 16) + 48 * b"\xb8\x0b"


def jpeg2000_16() -> bytes:
    content = encode(Image.new("RGB", (64, 64)), "JPEG2000", no_jp2=True)
    return content[:42] + b"\x0f\x01\x01" * 3 + content[51:]  # of each channel: bits - 1, and subsampling


@pytest.mark.parametrize("make", [png_16, tiff_16, jpeg2000_16])
def test_channels_of_16_bits_that_pillow_reduces_are_refused(make):
    encoded = make()
    assert Image.open(io.BytesIO(encoded)).mode == "RGB"
    for read in (encode_image, make_thumbnail):
        with pytest.raises(UserError, match="8 bits per channel: 16 bits"):
            read(encoded)


@pytest.mark.parametrize("mode", ["I;16", "F", "LAB"])
def test_pictures_that_are_not_of_8_bits_in_color_or_gray_are_refused(mode):
    encoded = encode(Image.new(mode, (4, 4)), "TIFF")
    for read in (encode_image, make_thumbnail):
        with pytest.raises(UserError, match=mode):
            read(encoded)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_half_an_image_is_undecodable(image_format):
    encoded = encode(Image.effect_noise((64, 64), 60), image_format)
    for damaged in (encoded[: len(encoded) // 2], b"", b"no image"):
        with pytest.raises(UserError, match="undecodable"):
            encode_image(damaged)


def test_a_corpus_holds_known_formats_only():
    """Pillow would start Ghostscript for an EPS file."""
    picture = Image.new("RGB", (9, 9))
    for image_format in FORMATS:
        assert open_encoded(encode(picture, image_format)).size == (9, 9)
    for image_format in ("EPS", "ICO", "TGA", "PCX"):
        with pytest.raises(IMAGE_ERRORS):
            open_encoded(encode(picture, image_format))


def bomb() -> bytes:
    """A PNG with a header that claims 180 million pixels."""
    content = encode(Image.new("RGB", (123, 123)), "PNG")
    content = content.replace(struct.pack(">II", 123, 123), struct.pack(">II", 18_000, 10_000))
    return content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]


def broken_tiff() -> bytes:
    """A TIFF in which the offset of the pixels has the type of text, for which Pillow raises `TypeError`."""
    content, offset = encode(Image.new("RGB", (9, 9)), "TIFF"), struct.pack("<HH", 273, 4)
    assert content.count(offset) == 1
    return content.replace(offset, struct.pack("<HH", 273, 2))


@pytest.mark.parametrize("make", [bomb, broken_tiff])
def test_a_harmful_file_is_a_user_error_wherever_it_is_read(monkeypatch, make):
    content = make()
    if make is bomb:  # the size must be checked before decoding
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    for read in (encode_image, make_thumbnail):
        with pytest.raises(UserError, match="undecodable"):
            read(content)
    with pytest.raises(ValueError, match="a/b"):
        decode_image({"bytes": content, "path": None}, "a/b")
    with pytest.raises(handler.InputError):
        handler.open_image(content)


def test_pictures_that_would_take_hours_or_grow_are_refused():
    """Models resize the short side; each scan of a JPEG decodes the whole picture."""
    with pytest.raises(ValueError, match="51"):
        open_encoded(encode(Image.new("RGB", (1, 51)), "PNG"))
    content = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    assert open_encoded(content).size == (64, 64)
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="JPEG"):
        open_encoded(content[:-2] + 41 * scan + content[-2:])
    video = random.Random(0).randbytes(5_000_000)  # as phones append to a picture
    assert video.count(b"\xff\xda") > 50 and open_encoded(content + video).size == (64, 64)


def test_corpora_and_the_endpoint_have_the_same_limits():
    """The handler is copied to the Hub alone, so it has its own limits."""
    costs = ("MAX_HEADER_PARTS", "MAX_HEADER_BYTES", "MAX_PARTS", "MAX_EXIF_BYTES", "MAX_COSTLY_PIXELS", "MAX_BLOCKS")
    for name in ("MAX_RATIO", "MAX_SCANS", "JPEG_SCAN", "J2K_SIZ", "J2K_COD", *costs):
        assert getattr(images, name) == getattr(handler, name), name
    for name in ("TooCostly", "Bounded", "BoundedFile", "check_cost", "check_blocks", "check_exif"):
        assert inspect.getsource(getattr(images, name)) == inspect.getsource(getattr(handler, name)), name
    assert set(handler.FORMATS) == set(FORMATS) - {"PPM"}
