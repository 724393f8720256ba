"""Images of corpora: bad files are user errors, and our own bugs are not."""

import io

import pytest
from PIL import Image

from rsmclip import image_processing_rsmclip
from rsmclip.core.errors import UserError
from rsmclip.core.images import FORMATS, IMAGE_SUFFIXES, decode_image, decode_rgb


def encode(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def test_a_bug_in_our_own_conversion_is_not_reported_as_a_bad_image(monkeypatch):
    def broken(image):
        raise TypeError("a bug")

    row = {"bytes": encode(Image.new("RGB", (9, 9)), "PNG"), "path": None}
    monkeypatch.setattr(image_processing_rsmclip, "as_image", broken)
    with pytest.raises(TypeError, match="a bug"):
        decode_image(row, "a/b")


def test_an_image_that_cannot_be_decoded_is_named():
    content = encode(Image.effect_noise((64, 64), 50), "PNG")
    values = encode(Image.new("F", (9, 9), 5e6), "TIFF")  # of no range that is known
    for encoded in (b"", b"text", content[: len(content) // 2], values):
        with pytest.raises(UserError, match="image a/b") as raised:
            decode_image({"bytes": encoded, "path": None}, "a/b")
        assert "\n" not in str(raised.value) and "0x" not in str(raised.value)
    for missing in (None, {"bytes": None, "path": "no/such/file"}):
        with pytest.raises(UserError, match="a/b.*missing"):
            decode_image(missing, "a/b")


def test_a_jpeg_is_decoded_at_a_fraction_of_its_size():
    content = encode(Image.new("RGB", (640, 480), "red"), "JPEG")
    assert decode_rgb(content).size == (640, 480) and decode_rgb(content, short_side=100).size == (160, 120)


def test_the_suffixes_are_those_that_pillow_registers_for_the_formats():
    registered = Image.registered_extensions().items()
    assert sorted(IMAGE_SUFFIXES) == sorted(suffix for suffix, image_format in registered if image_format in FORMATS)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_file_with_each_suffix_is_decoded(suffix, tmp_path):
    mode = {".pfm": "F", ".pbm": "1"}.get(suffix, "L")
    Image.new(mode, (9, 9)).save(tmp_path / f"a{suffix}")
    assert decode_rgb((tmp_path / f"a{suffix}").read_bytes()).size == (9, 9)
