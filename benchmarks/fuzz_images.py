"""
Damaged and hostile images of all formats through `decode_image` and the handler, each with its time and memory.

    python -m rsmclip.benchmarks.fuzz_images [--seed 0] [--only PATTERN]

A child process decodes the images. Its peak of memory is reset before each image, which needs Linux.
"""

import argparse
import io
import os
import random
import re
import resource
import signal
import struct
import sys
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.images import decode_image
from rsmclip.data.faults import encode_image
from rsmclip.hub.handler import InputError, open_image

SECONDS, BYTES = 4.0, 10**9  # an image that takes more is reported; 50 scans of 50 million pixels take over 2 s
DEADLINE = 10  # seconds of CPU for an image, after which the child process ends
ADDRESSES = 12 * 2**30  # bytes of addresses of the process that reads an image
MUTANTS = 44  # of each picture
SIZES = (1_000, 30_000, 1_000_000)  # numbers of repeated parts
LARGEST = 4 * 2**20  # bytes, about; a file with more parts has fewer


def image_inputs(seed: int) -> Iterator[tuple[str, bytes]]:
    """
    Yield names and contents of over 2,000 image files: mutated pictures of every format, and files made to be costly.

    Args:
        seed (`int`): Equal seeds yield equal files.
    """
    draw = random.Random(seed)
    pictures = dict(small_pictures(draw))
    for name, content in pictures.items():
        yield name, content
        for number in range(MUTANTS):
            mutate = draw.choice(MUTATIONS)
            mutant = mutate(draw, content, draw.choice(list(pictures.values())))
            yield f"{name} {mutate.__name__} {number}", mutant
    for make in COSTLY:
        for size in SIZES:
            for number, content in enumerate(make(draw, draw.randint(size // 2, size))):
                yield f"{make.__name__} {size:,} {number}", content


def small_pictures(draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield a name and the content of a picture for each format and its variants."""
    color = Image.frombytes("RGB", (61, 47), draw.randbytes(61 * 47 * 3))
    exif = Image.Exif()
    exif[274], exif[305] = 6, "a program"
    saved = {"exif": exif, "icc_profile": draw.randbytes(600)}
    variants = {
        "JPEG": [{}, {"progressive": True, **saved}, {"mode": "L"}, {"mode": "CMYK"}, {"restart_marker_rows": 1}],
        "PNG": [{**saved}, {"mode": "P"}, {"mode": "RGBA"}, {"mode": "1"}, {"mode": "I;16"}],
        "TIFF": [
            *({"compression": name} for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd")),
            *({"mode": "1", "compression": "group4"}, {"mode": "I;16"}, {"mode": "F"}, {"big_tiff": True, **saved}),
        ],
        "WEBP": [{}, {"lossless": True, **saved}, {"mode": "RGBA"}],
        "GIF": [{"comment": b"a comment"}, {"mode": "P", "interlace": 0}],
        "BMP": [{}, {"mode": "P"}, {"mode": "1"}],
        "JPEG2000": [{}, {"no_jp2": True, "tile_size": (16, 16)}, {"irreversible": True, "quality_layers": [20, 5]}],
        "PPM": [{}, {"mode": "L"}, {"mode": "1"}, {"mode": "F"}],
    }
    for image_format, options in variants.items():
        for number, option in enumerate(options):
            mode = option.get("mode", "RGB")
            image = color.convert("L").convert(mode) if mode in ("I;16", "F") else color.convert(mode)
            image.save(buffer := io.BytesIO(), image_format, **{k: v for k, v in option.items() if k != "mode"})
            yield f"{image_format} {number}", buffer.getvalue()
    for image_format in ("GIF", "WEBP", "PNG", "TIFF", "MPO"):
        frames = [color.rotate(angle) for angle in (5, 10)]
        color.save(buffer := io.BytesIO(), image_format, save_all=True, append_images=frames)
        yield f"{image_format} frames", buffer.getvalue()


# Mutations get a picture and another one.


def flip_bytes(draw: random.Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 12)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def change_header(draw: random.Random, content: bytes, other: bytes) -> bytes:
    """Overwrite one to eight of the first 200 bytes with a number at the edge of its type."""
    edge = draw.choice([b"\0\0", b"\xff\xff", b"\x7f\xff", b"\x80\0", b"\1\0"])
    start, length = draw.randrange(2, min(200, len(content) - 8)), draw.choice([1, 2, 4, 8])
    number = (edge + edge[1:] * 6)[:length]
    return content[:start] + draw.choice([number, number[::-1]]) + content[start + length :]


def cut(draw: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def repeat_part(draw: random.Random, content: bytes, other: bytes) -> bytes:
    start = draw.randrange(len(content))
    stop = start + draw.choice([1, 2, 4, 12, 64, 1000])
    return content[:start] + content[start:stop] * draw.choice([2, 100, 10_000]) + content[stop:]


def splice(draw: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: draw.randrange(len(content))] + other[draw.randrange(len(other)) :]


MUTATIONS = (flip_bytes, change_header, cut, repeat_part, splice)


# Parts of files


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    image.save(buffer := io.BytesIO(), image_format, **options)
    return buffer.getvalue()


def zeros(length: int) -> bytes:
    """Compress so many zeros, and some more."""
    stream = zlib.compressobj(9)
    first, block = (stream.compress(bytes(2**14)) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + block * (length >> 14) + stream.flush()


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A TIFF of these tags (number, type, count, value or offset). `tail` begins at 14 + 12 · number of tags."""
    table = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + struct.pack("<I", following) + tail


def shared_tags(number: int, size: int, kind: int = 7, first: int = 1000) -> list[tuple[int, int, int, int]]:
    """Tags that all name the same `size` bytes, at the end of this directory."""
    return [(first + tag, kind, size // (8 if kind in (5, 12) else 1), 14 + 12 * number) for tag in range(number)]


def picture_tags(offset: int, width: int = 16, height: int = 16, **changes: int) -> list[tuple[int, int, int, int]]:
    """Tags of a gray picture of 8 bits."""
    numbers = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: offset, 277: 1, 278: height, 279: width * height}
    return [(tag, 4, 1, value) for tag, value in numbers.items()]


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (16, 16), bits: int = 8, kind: int = 0) -> bytes:
    """A gray PNG with these chunks before the pixels, which are zeros. A chunk named IDAT takes their place."""
    width, height = size
    pixels = zeros((1 + (width * bits * {0: 1, 2: 3, 6: 4}[kind] + 7) // 8) * height)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)), *chunks]
    chunks += [(b"IEND", b"")] if any(name == b"IDAT" for name, _ in chunks) else [(b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def jpeg(*segments: bytes, **options: object) -> bytes:
    """A JPEG with these segments at its beginning."""
    content = encode(Image.new("L", (16, 16)), "JPEG", **options)
    return content[:2] + b"".join(segments) + content[2:]


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 255, marker, 2 + len(data)) + data


def webp(*chunks: tuple[bytes, bytes], flags: int = 0, size: tuple[int, int] = (16, 16)) -> bytes:
    """A WebP in its extended form with these chunks."""
    width, height = ((side - 1).to_bytes(3, "little") for side in size)
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
        for name, data in [(b"VP8X", bytes([flags, 0, 0, 0]) + width + height), *chunks]
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_pixels() -> tuple[bytes, bytes]:
    content = encode(Image.new("RGB", (16, 16)), "WEBP", lossless=True)
    return content[12:16], content[20:]


def webp_animation(size: tuple[int, int] = (16, 16), frames: int = 1) -> bytes:
    """An animated WebP of this size whose frames have 16 × 16 pixels."""
    name, data = webp_pixels()
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4)
    frame += name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return webp((b"ANIM", bytes(6)), *[(b"ANMF", frame)] * frames, flags=2, size=size)


def gif(blocks: bytes = b"", frames: int = 1) -> bytes:
    """A GIF of 16 × 16 pixels with these blocks before its frames."""
    content = encode(Image.new("L", (16, 16)), "GIF")
    start = content.index(b",\0\0\0\0")
    return content[:start] + blocks + content[start:-1] * frames + b";"


def bmp(rows: bytes, size: tuple[int, int], compression: int = 1) -> bytes:
    bits = {1: 8, 2: 4}[compression]
    palette = bytes(range(4)) * 2**bits
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(rows), 0, 0, 2**bits, 0)
    return struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset) + header + palette + rows


def j2k(
    size: int = 64,
    tile: int = 64,
    levels: int = 0,
    precinct: int | None = None,
    layers: int = 1,
    block: int = 6,
    bands: int = 1,
) -> bytes:
    """A JPEG 2000 codestream with an empty tile. `precinct` and `block` are logarithms of sides."""
    siz = struct.pack(">HIIIIIIIIH", 0, size, size, 0, 0, tile, tile, 0, 0, bands) + bytes([7, 1, 1]) * bands
    sizes = b"" if precinct is None else bytes([17 * precinct]) * (levels + 1)
    cod = (
        bytes([precinct is not None, 2])
        + struct.pack(">H", layers)
        + bytes([0, levels, block - 2, block - 2, 0, 1])
        + sizes
    )
    qcd = bytes([0x20]) + bytes([0x40] * (3 * levels + 1))
    sot = struct.pack(">HIBB", 0, 14, 0, 1)
    return (
        b"\xff\x4f"
        + segment(0x51, siz)
        + segment(0x52, cod)
        + segment(0x5C, qcd)
        + segment(0x90, sot)
        + b"\xff\x93\xff\xd9"
    )


# Costly files. Each function yields files for a number of repeated parts.


def tiff_tags(draw: random.Random, number: int) -> Iterator[bytes]:
    tags, size = min(number, 3_000), 2**20
    for kind in (1, 2, 5, 7, 12):
        yield tiff(shared_tags(tags, size, kind) + picture_tags(8), bytes(size))
    pointer = 14 + 12 * 10
    for tag in (34665, 34853, 40965):
        inner = tiff(shared_tags(tags, size), bytes(size))[8:]
        shifted = inner[:2] + b"".join(
            struct.pack("<HHII", *entry[:3], entry[3] + pointer - 8)
            for entry in struct.iter_unpack("<HHII", inner[2 : 2 + 12 * tags])
        )
        yield tiff([*picture_tags(8), (tag, 4, 1, pointer)], shifted + inner[2 + 12 * tags :])


def tiff_directories(draw: random.Random, number: int) -> Iterator[bytes]:
    yield tiff(picture_tags(8), following=8)
    number = min(number, LARGEST // 126)
    table = tiff(picture_tags(8))[8:-4]
    size = len(table) + 4
    yield b"II*\0\x08\0\0\0" + b"".join(table + struct.pack("<I", 8 + size * (page + 1)) for page in range(number))
    big = b"".join(struct.pack("<HHQQ", tag % 2**16, 4, 1, 8) for tag in range(min(number, LARGEST // 20)))
    yield b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(big) // 20) + big + bytes(8)
    yield tiff([*picture_tags(8), *((tag, 4, 1, 1) for tag in range(1000, 1000 + min(number, 65_000)))])


def tiff_counts(draw: random.Random, number: int) -> Iterator[bytes]:
    for tag in (258, 273, 279, 320, 330, 339, 700, 34675):
        for count in (number, 2**31 - 1, 2**32 - 1):
            tags = [entry for entry in picture_tags(8) if entry[0] != tag]
            yield tiff([*tags, (tag, draw.choice([1, 3, 4, 5, 16]), count, 8)], bytes(min(8 * number, 10**6)))


def tiff_tiles(draw: random.Random, number: int) -> Iterator[bytes]:
    number = min(number, LARGEST // 8)
    side = 700
    # Strips that all name the same pixels: each covers the picture but one row.
    start = 14 + 12 * 9
    tags = [entry for entry in picture_tags(0, side, side) if entry[0] not in (273, 278, 279)]
    tags += [(273, 4, number, start), (278, 4, 1, side - 1), (279, 4, 1, side * side)]
    yield tiff(tags, struct.pack("<I", start) * number + bytes(side * side))
    # Compressed tiles that are far larger than the picture, and a picture of many tiles
    for width, tile, compressed in ((16, 32768, True), (16, 2**15 + 16, False), (7_000, 16, True)):
        pixels = zeros(tile * tile) if compressed else b""
        numbers = {256: width, 257: width, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile}
        start, tiles = 14 + 12 * 10, (-(-width // tile)) ** 2
        tags = [(tag, 4, 1, value) for tag, value in numbers.items()]
        if tiles == 1:
            tags += [(324, 4, 1, start), (325, 4, 1, len(pixels))]
        else:
            tags += [(324, 4, tiles, start), (325, 4, tiles, start + 4 * tiles)]
        numbers = struct.pack("<I", start + 8 * tiles) * tiles + struct.pack("<I", len(pixels)) * tiles
        yield tiff(tags, (numbers if tiles > 1 else b"") + pixels)


def png_exif(draw: random.Random, number: int) -> Iterator[bytes]:
    tags, size = min(number, 3_000), 2**19
    for kind in (2, 7):
        yield png((b"eXIf", tiff(shared_tags(tags, size, kind), bytes(size))))
    yield png((b"eXIf", b"Exif\0\0" * min(number, LARGEST // 6)))
    profile = tiff(shared_tags(tags, size // 4), bytes(size // 4)).hex()
    yield png((b"tEXt", b"Raw profile type exif\0\n\n\n" + profile.encode()))


def png_text(draw: random.Random, number: int) -> Iterator[bytes]:
    megabyte = zlib.compress(bytes(2**20 - 1), 9)
    for name, head in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        for data in (megabyte, megabyte[:-1]):  # without its last byte it's an error after all is decompressed
            yield png(*[(name, head + data)] * min(number, LARGEST // len(data)))
    for name in (b"tEXt", b"xxXx", b"vpAg", b"PLTE", b"gAMA"):
        yield png(*[(name, b"\0\0\0\0")] * min(number, LARGEST // 16))


def png_pixels(draw: random.Random, number: int) -> Iterator[bytes]:
    data = zlib.compress(bytes(17 * 16))
    parts = [(b"IDAT", data[:1])] + [(b"IDAT", b"")] * min(number, LARGEST // 12) + [(b"IDAT", data[1:])]
    yield png(*parts)
    yield png(*[(b"IDAT", data)] + [(b"tEXt", b"k\0v")] * min(number, LARGEST // 15))
    if number > 100_000:
        yield png(size=(13_000, 13_000), bits=1)
        yield png(size=(7_000, 7_000), kind=2)
    frame = struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 1, 0, 0)
    frames = [(b"acTL", struct.pack(">II", 2**31 - 1, 0)), (b"fcTL", frame), (b"IDAT", data)]
    for sequence in range(1, min(number, LARGEST // 100), 2):
        frames.append((b"fcTL", struct.pack(">I", sequence) + frame[4:]))
        frames.append((b"fdAT", struct.pack(">I", sequence + 1) + data))
    yield png(*frames)


def jpeg_segments(draw: random.Random, number: int) -> Iterator[bytes]:
    many = min(number, LARGEST // 4)
    for marker in (0xFE, 0xE1, 0xE2, 0xED, 0xDD, 0xC4):
        yield jpeg(segment(marker) * many)
    yield jpeg(segment(0xE1, b"Exif\0\0") * min(many, LARGEST // 10))
    yield jpeg(segment(0xE1, b"Exif\0\0" + bytes(500)) * min(many, LARGEST // 510))
    yield jpeg(segment(0xE1, b"Exif\0\0" * 10_000) * min(many, 60))
    exif = tiff(shared_tags(2_500, 30_000), bytes(30_000))
    yield jpeg(segment(0xE1, b"Exif\0\0" + exif))
    size = LARGEST // 2
    exif = tiff(shared_tags(min(number, 3_000), size), bytes(size))
    pieces = (exif[start : start + 60_000] for start in range(0, len(exif), 60_000))
    yield jpeg(b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces))
    yield jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1") * min(many, LARGEST // 18))
    yield jpeg(b"\0" * min(10 * number, LARGEST))
    yield jpeg(b"\xff" * min(10 * number, LARGEST))
    yield jpeg(segment(0xDB, bytes(65)) * min(many, LARGEST // 69))
    yield jpeg(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\0\0\0\0\0\0\0" * 5_000) * min(many, 60))
    content = encode(Image.new("L", (16, 16)), "JPEG")
    start = content.index(b"\xff\xc0")
    frame = content[start : start + 13]
    yield jpeg(frame * min(many, LARGEST // 13))


def jpeg_pixels(draw: random.Random, number: int) -> Iterator[bytes]:
    if number > 100_000:
        for progressive in (False, True):
            content = encode(Image.new("RGB", (7_000, 7_000)), "JPEG", progressive=progressive)
            last = content.rindex(b"\xff\xda")
            yield content[:-2] + 40 * content[last:-2] + content[-2:] if progressive else content
    index = tiff([(0xB001, 4, 1, number), (0xB002, 7, min(16 * number, 60_000), 14 + 24)], bytes(60_000))
    yield jpeg(segment(0xE2, b"MPF\0" + index))
    index = tiff(shared_tags(2_000, 30_000), bytes(30_000))
    yield jpeg(segment(0xE2, b"MPF\0" + index))


def gif_blocks(draw: random.Random, number: int) -> Iterator[bytes]:
    for kind in (0xFE, 0xFF, 0xF9, 0x01):
        yield gif(bytes([33, kind]) + b"\1a" * min(number, LARGEST // 2) + b"\0")
        yield gif(bytes([33, kind, 1, 97, 0]) * min(number, LARGEST // 5))
    yield gif(frames=min(number, LARGEST // 30))
    yield gif(b"\0" * min(number, LARGEST))
    yield gif(b"!\xfe" + (b"\xff" + bytes(range(1, 256))) * min(number, LARGEST // 256) + b"\0")


def bmp_runs(draw: random.Random, number: int) -> Iterator[bytes]:
    side = min(int((number * 40) ** 0.5), 7_000)
    yield bmp(b"\0\0" * 3_000, (side, side))
    yield bmp(b"\1\0\0\0" * side, (side, side))
    yield bmp(b"\0\2\xff\xff" * 3_000, (side, side))
    yield bmp(b"\xff\0" * (side * side // 255), (side, side), 2)
    yield bmp(b"\1\0" * min(number, LARGEST // 2), (side, side), 2)


def webp_chunks(draw: random.Random, number: int) -> Iterator[bytes]:
    pixels = webp_pixels()
    yield webp(*[(b"ICCP", b"")] * min(number, LARGEST // 8), pixels)
    yield webp(pixels, *[(b"XXXX", b"")] * min(number, LARGEST // 8))
    tags, size = min(number, 3_000), 2**19
    yield webp(pixels, (b"EXIF", tiff(shared_tags(tags, size), bytes(size))), flags=8)
    yield webp(pixels, (b"EXIF", b"Exif\0\0" * min(number, LARGEST // 6)), flags=8)
    yield webp_animation(frames=min(number, LARGEST // 80))
    for size in ((16383, 16383), (12_000, 12_000), (5_000, 5_000)):
        yield webp_animation(size)
    if number > 100_000:
        yield encode(Image.new("RGB", (5_000, 5_000)), "WEBP", lossless=True, method=0)


def jpeg2000_boxes(draw: random.Random, number: int) -> Iterator[bytes]:
    signature = b"\0\0\0\x0cjP  \r\n\x87\n"
    content = encode(Image.new("L", (16, 16)), "JPEG2000")
    start = content.index(b"jp2h") - 4
    yield content[:start] + b"\0\0\0\x08free" * min(number, LARGEST // 8) + content[start:]
    header = b"\0\0\0\x16ihdr" + struct.pack(">IIHBBBB", 16, 16, 1, 7, 7, 0, 0)
    inner = header + b"\0\0\0\x08free" * min(number, LARGEST // 8)
    yield signature + struct.pack(">I", 8 + len(inner)) + b"jp2h" + inner
    stream = j2k()
    yield stream[:4] + stream[4:45] + segment(0x55) * min(number, LARGEST // 4) + stream[45:]


def jpeg2000_pixels(draw: random.Random, number: int) -> Iterator[bytes]:
    side = min(int((number * 40) ** 0.5), 5_000)
    for block in (2, 4, 6):
        for bands in (1, 4):
            yield j2k(side, side, block=block, bands=bands)
    for bands in (1, 4):
        yield j2k(side, max(side // 250, 1), bands=bands)
        yield j2k(side, side, 5, bands=bands)
        for precinct in (0, 1, 4, 7):
            yield j2k(side, side, 0 if precinct == 0 else 5, precinct, bands=bands)
        yield j2k(side, side, 5, 6, layers=65_535, bands=bands)
    yield j2k(side, side, 32)
    yield encode(Image.new("RGBA", (side, side)), "JPEG2000")


def ppm_text(draw: random.Random, number: int) -> Iterator[bytes]:
    many = min(number, 2**20)
    yield b"P6 #" + b"a" * many + b"\n16 16 255\n" + bytes(768)
    yield b"P6" + b"\n" * many + b"16 16 255\n" + bytes(768)
    yield b"P3 16 16 255\n" + b"#\n" * (many // 2) + b"0 " * 768
    yield b"P1 16 16\n" + b"#\r" * (many // 2) + b"0 " * 256
    side = int(min(number, LARGEST // 2) ** 0.5)
    yield b"P2 %d %d 254\n" % (side, side) + b"7 " * side**2
    yield b"P5 %d %d 254\n" % (side, side) + bytes(side**2)
    yield b"P6 %d %d 254\n" % (side // 2, side // 2) + bytes(3 * (side // 2) ** 2)


COSTLY = (
    *(tiff_tags, tiff_directories, tiff_counts, tiff_tiles, png_exif, png_text, png_pixels),
    *(jpeg_segments, jpeg_pixels, gif_blocks, bmp_runs, webp_chunks, jpeg2000_boxes, jpeg2000_pixels, ppm_text),
)


# Running them


def read_for_evaluation(content: bytes) -> None:
    decode_image({"bytes": content, "path": None}, "a/b")


def read_for_stretched_build(content: bytes) -> None:
    encode_image(content, (2, 98))


READERS: dict[str, Callable[[bytes], object]] = {
    "evaluation": read_for_evaluation,
    "endpoint": open_image,
    "build": encode_image,
    "stretch": read_for_stretched_build,
}
OUTCOMES = ("read", "refused", "traceback")


def measured(read: Callable[[bytes], object], content: bytes) -> tuple[float, int, str]:
    """Read an image in a process of its own. Returns seconds of CPU, peak of memory in bytes, and the outcome."""
    process = os.fork()
    if not process:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (DEADLINE, DEADLINE))
        outcome = 2
        try:
            read(content)
            outcome = 0
        except (UserError, InputError):
            outcome = 1
        except Exception:  # a fault to report
            traceback.print_exc()
        finally:
            os._exit(outcome)
    _, status, usage = os.wait4(process, 0)
    signal_number, outcome = status & 127, status >> 8
    ended = f"ended by {signal.Signals(signal_number).name}" if signal_number else OUTCOMES[outcome]
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="regular expression for names of images")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    read_for_evaluation(png())  # imports what readers import late
    outcomes = {reader: Counter() for reader in args.readers}
    slowest, largest = dict.fromkeys(args.readers, (0.0, "")), dict.fromkeys(args.readers, (0, ""))
    _, own, _ = measured(len, b"")
    faults = 0
    for name, content in image_inputs(args.seed):
        for reader in args.readers if re.search(args.only, name) else ():
            seconds, memory, outcome = measured(READERS[reader], content)
            memory -= own
            outcomes[reader][outcome] += 1
            slowest[reader] = max(slowest[reader], (seconds, name))
            largest[reader] = max(largest[reader], (memory, name))
            if seconds > SECONDS or memory > BYTES or outcome not in OUTCOMES[:2]:
                faults += 1
                print(f"{reader}: {name}: {seconds:.1f} s, {memory / 1e9:.2f} GB, {outcome}", flush=True)
    for reader in args.readers:
        print(
            f"{reader}: {outcomes[reader].total():,} images, {outcomes[reader]['refused']:,} refused; "
            f"slowest {slowest[reader][0]:.1f} s ({slowest[reader][1]}), "
            f"largest {largest[reader][0] / 1e9:.2f} GB ({largest[reader][1]})"
        )
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
