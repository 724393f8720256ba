"""Images of corpora: bad files are user errors, and our own bugs are not."""

import io
import random
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from PIL import Image

from rsmclip import image_processing_rsmclip
from rsmclip.benchmarks import fuzz_images
from rsmclip.core.errors import UserError
from rsmclip.core.images import FORMATS, IMAGE_SUFFIXES, decode_image, decode_rgb
from rsmclip.hub.handler import InputError, open_image


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


@pytest.mark.parametrize("make", fuzz_images.COSTLY, ids=lambda make: make.__name__)
def test_a_small_file_takes_neither_much_time_nor_much_memory(make):
    _, own, _ = fuzz_images.measured(len, b"")
    for number, content in enumerate(make(random.Random(0), 100_000)):
        for reader in ("evaluation", "endpoint"):
            seconds, memory, outcome = fuzz_images.measured(fuzz_images.READERS[reader], content)
            assert outcome in ("read", "refused"), (number, reader, outcome)
            assert seconds < 4 and memory - own < 8e8, (number, reader, seconds, memory - own)


MANY = 20_000


def made(make: Callable[[random.Random, int], Iterator[bytes]], number: int = 0, parts: int = MANY) -> bytes:
    return next(islice(make(random.Random(0), parts), number, None))


COSTLY_FILES = {
    "TIFF, tags of the same bytes": (lambda: made(fuzz_images.tiff_tags), "metadata"),
    "TIFF, EXIF tags of the same bytes": (lambda: made(fuzz_images.tiff_tags, 5), "metadata"),
    "TIFF, strips of the same bytes": (lambda: made(fuzz_images.tiff_tiles, parts=400_000), "metadata"),
    "TIFF, tile of a gigabyte": (lambda: made(fuzz_images.tiff_tiles, 1), "tiles"),
    "PNG, tiny chunks": (lambda: fuzz_images.png(*[(b"tEXt", b"k\0")] * MANY), "metadata"),
    "PNG, profiles that grow": (lambda: made(fuzz_images.png_text, 4), "metadata"),
    "JPEG, tiny segments": (lambda: made(fuzz_images.jpeg_segments), "metadata"),
    "JPEG, EXIF of many segments": (lambda: made(fuzz_images.jpeg_segments, 6), "metadata"),
    "GIF, comments of one byte": (lambda: made(fuzz_images.gif_blocks), "metadata"),
    "JPEG 2000, tiny boxes": (lambda: made(fuzz_images.jpeg2000_boxes), "metadata"),
    "JPEG 2000, tiny blocks": (lambda: fuzz_images.j2k(5_000, 5_000, block=2), "blocks"),
    "JPEG 2000, tiny precincts": (lambda: fuzz_images.j2k(5_000, 5_000, levels=5, precinct=1), "blocks"),
    "JPEG 2000, pixels": (lambda: fuzz_images.j2k(5_001, 5_001), "25,000,000"),
    "WebP, pixels": (lambda: fuzz_images.webp_animation((5_001, 5_001)), "25,000,000"),
    "BMP, run lengths": (lambda: fuzz_images.bmp(b"\1\0\0\0" * 9, (9, 9)), "BMP.*PNG"),
}


@pytest.mark.parametrize(("make", "reason"), COSTLY_FILES.values(), ids=COSTLY_FILES)
def test_a_costly_file_is_refused_with_the_reason(make, reason):
    content = make()
    with pytest.raises(UserError, match=f"image a/b .*{reason}"):
        decode_image({"bytes": content, "path": None}, "a/b")
    with pytest.raises(InputError, match=reason):
        open_image(content)


def test_a_ppm_of_text_is_refused():
    """Pillow reads its comments in quadratic time, and its numbers in Python."""
    with pytest.raises(UserError, match="PPM.*PNG"):
        decode_rgb(b"P3 2 2 255 " + b"0 " * 12)


@pytest.mark.parametrize("kind", ["eXIf", "tEXt"])
def test_long_exif_data_is_not_parsed(kind):
    data = {"eXIf": b"Exif\0\0" * 30_000, "tEXt": b"Raw profile type exif\0\n\n\n" + b"00" * 90_000}[kind]
    content = fuzz_images.png((kind.encode(), data))
    with pytest.raises(UserError, match="EXIF.*128 KiB"):
        decode_rgb(content)
    with pytest.raises(InputError, match="EXIF.*128 KiB"):
        open_image(content)


def test_metadata_of_usual_files_is_accepted():
    image, profile = Image.effect_noise((300, 200), 50).convert("RGB"), random.Random(0).randbytes(10**6)
    exif = Image.Exif()
    exif[274], exif[37500] = 1, random.Random(0).randbytes(60_000)
    for image_format, options in {
        "JPEG": {"icc_profile": profile, "exif": exif, "comment": 60_000 * b"a", "progressive": True},
        "PNG": {"icc_profile": profile, "exif": exif},
        "TIFF": {"icc_profile": profile, "exif": exif, "strip_size": 1, "compression": "tiff_lzw"},
        "WEBP": {"icc_profile": profile, "exif": exif},
        "GIF": {"comment": 60_000 * b"a"},
        "JPEG2000": {"tile_size": (16, 16), "precinct_size": (128, 128), "codeblock_size": (32, 32)},
    }.items():
        image.save(buffer := io.BytesIO(), image_format, **options)
        assert decode_rgb(buffer.getvalue()).size == open_image(buffer.getvalue()).size == image.size, image_format


def test_the_inputs_of_the_fuzz_depend_on_the_seed_alone():
    def first(seed: int) -> list[tuple[str, bytes]]:
        return [entry for entry, _ in zip(fuzz_images.image_inputs(seed), range(99), strict=False)]

    assert first(0) == first(0) != first(1)
