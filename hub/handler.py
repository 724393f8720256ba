"""Serve a model: what Hugging Face Inference Endpoints start, and what the Space calls.

This file is copied into every model folder and imports nothing of this repository. The Inference Toolkit imports it
from the model folder, makes one `EndpointHandler(folder)` and calls it with the body of each request:

    {"inputs": IMAGE, "parameters": {"candidate_labels": ["an airport", "a port"]}}          scores of the labels
    {"inputs": {"image": IMAGE, "candidate_labels": [...]}, "parameters": {"hypothesis_template": "Imagem: {}."}}
    {"inputs": {"image": IMAGE}}, {"inputs": {"text": "um porto"}}                           embeddings of unit length

IMAGE is base64 or a `data:` URL. The toolkit turns the body of an `image/*` request into a PIL image, which is also
accepted. URLs are not fetched. A list of images or texts gets a list of answers. The Hub's task
`zero-shot-image-classification` defines the first form.

The toolkit sends `str(exception)` to the client with status 400. Bad requests raise [`InputError`], which the client
sees. Any other error is logged, and the client only learns that the request failed.
"""

import base64
import io
import json
import logging
import re
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, TiffTags
from transformers import AutoModel, AutoProcessor

MAX_IMAGES = 32  # in a request
MAX_IMAGE_BYTES = 20 * 2**20  # of an encoded image
MAX_PIXELS = 50_000_000  # of an image, read from its header before it is decoded
MAX_RATIO = 50  # longer side / shorter side; preprocessing resizes the shorter side to the model's size
MAX_SCANS = 50  # of a JPEG; a progressive one has about ten, and each scan decodes the whole picture again
MAX_HEADER_PARTS = 2000  # that are read before the pixels: segments, chunks, tags and their values
MAX_HEADER_BYTES = 2**22
MAX_PARTS = 500_000  # that are read with the pixels
MAX_EXIF_BYTES = 2**17
MAX_COSTLY_PIXELS = 25_000_000  # of WebP and JPEG 2000, whose decoders need up to 24 bytes for a pixel
MAX_BLOCKS = 300_000  # of all components of a JPEG 2000
MAX_TEXTS = 256  # texts or labels in a request
MAX_CHARACTERS = 1000  # of a text, a label or a template; the tokenizer then cuts at the model's maximum length
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "GIF",
    "BMP",
    "JPEG2000",
)  # Pillow's other formats are rare or start programs

BATCH_SIZE = 32  # images or texts in one forward pass
# An entry has up to `MAX_TEXTS` rows of 512 floats. Its key has up to `MAX_TEXTS` prompts, each of up to twice
# `MAX_CHARACTERS` characters of 4 bytes. All entries together need at most 41 MB.
CACHED_LABEL_SETS = 16
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")
# Header of a JPEG scan with one to four components. The first two bytes alone also occur in data that follows a
# picture, such as the video of a phone.
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
LIST_AS_TEXT = re.compile(r"\s*\[.*\]\s*", re.DOTALL)  # ["a", "b"]
J2K_SIZE = b"\xff\x4f\xff\x51"  # begins a JPEG 2000 codestream: markers SOC and SIZ
# Headers of JPEG 2000. SIZ: corners of the image, sides of a tile, number of components. COD, and COC for one
# component: precincts given or not, number of levels, and logarithms of the sides of a block.
J2K_SIZ = re.compile(rb"\xff\x4f\xff\x51(.{38})", re.DOTALL)
J2K_COD = re.compile(
    rb"\xff(?:\x52\0.([\0-\7])[\0-\4]..[\0\1]|\x53\0..([\0\1]))([\0-\x20])([\0-\10])([\0-\10]).[\0\1]", re.DOTALL
)
RAW_16_BITS = (";16B", ";16L", ";16N")  # in Pillow's raw modes of 16 bits per channel
RESCALE = "rescale it to 8 bits, as with gdal_translate -ot Byte -scale IN OUT"
TURNS = {  # by the orientation in EXIF data
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's plugins raise on bytes that are not an image, on half an image, and on an image of absurd size. The
# second line comes from TIFF fields that are missing or have another type. Catch these around calls of Pillow alone.
IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """
    A bad request. The message is one line for the client, without paths or other details of this machine.

    `fault` names what is wrong with an image. The Space has a text for each fault.
    """

    def __init__(self, message: str, fault: str = "unusable"):
        super().__init__(message)
        self.fault = fault


class EndpointHandler:
    """
    A model and its processor.

    Args:
        path (`str`, *optional*): The model folder; by default the folder of this file.

    Raises:
        `ValueError`: The folder has no `config.json` or tokenizer, needs code from another repository, or its weights
            are incomplete.
        `OSError`: The folder has no weights in safetensors.
    """

    def __init__(self, path: str = ""):
        folder = Path(path) if path else Path(__file__).parent
        check_folder(folder)
        if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
            raise ValueError(f"{folder} has no tokenizer: add {TOKENIZER_FILES[0]}")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, found = AutoModel.from_pretrained(
            folder,
            trust_remote_code=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below
        )
        lacking = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
        if lacking:  # transformers initializes them at random
            names = ", ".join(sorted(lacking)[:3])
            raise ValueError(f"{folder}: the weights lack {names} in the shape that config.json gives")
        self.model = model.to(self.device).eval()
        self.logit_scale = model.logit_scale.detach().exp().item()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        self.image_processor, self.tokenizer = processor.image_processor, processor.tokenizer
        text = model.config.text_config
        self.max_tokens = min(self.tokenizer.model_max_length, text.max_position_embeddings - text.pad_token_id - 1)
        # Most clients send the same classes with every request.
        self.label_embeds = lru_cache(CACHED_LABEL_SETS)(lambda texts: self.embed_texts(list(texts)))
        # The toolkit decodes image/* bodies before this handler sees them; Pillow then refuses twice this number.
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS

    def __call__(self, data: dict) -> list:
        """
        Answer a request, whose fields are described at the top of this file.

        Returns:
            `list`: For an image with labels, `{"label": …, "score": …}` from the best to the worst; the scores add up
            to one. For an image or a text alone, its embedding. For a list of images or texts, a list of answers.

        Raises:
            [`InputError`]: The request is wrong.
            `RuntimeError`: The request failed for any other reason. The log has the reason.
        """
        try:
            return self.answer(data)
        except InputError:
            raise
        except Exception as error:  # the toolkit would send the text of the exception to the client
            logger.exception("a request failed")
            raise RuntimeError("the request failed inside the endpoint; see its log") from error

    def answer(self, data: dict) -> list:
        inputs, parameters = read_request(data)
        if "text" in inputs:
            texts = read_texts(inputs["text"], "text")
            embeds = self.embed_texts(texts).tolist()
            return embeds if isinstance(inputs["text"], list) else embeds[0]

        # Check the labels before the images, which take longer.
        labels, prompts = read_labels(parameters) if "candidate_labels" in parameters else (None, None)
        image = inputs["image"]
        images = image if isinstance(image, list) else [image]
        check_number(images, MAX_IMAGES, "images")
        image_embeds = self.embed_images(map(read_image, images))
        answers = image_embeds.tolist() if labels is None else self.score(image_embeds, labels, prompts)
        return answers if isinstance(image, list) else answers[0]

    def classify(self, images: Iterable[Image.Image], labels: list[str], hypothesis_template: str = "{}") -> list:
        """
        Return `{"label": …, "score": …}` from the best to the worst label, for each image.

        Raises:
            [`InputError`]: There are no labels or too many, or the template does not have `{}` once.
        """
        labels, prompts = read_labels({"candidate_labels": labels, "hypothesis_template": hypothesis_template})
        return self.score(self.embed_images(images), labels, prompts)

    def score(self, image_embeds: np.ndarray, labels: list[str], prompts: tuple[str, ...]) -> list[list[dict]]:
        logits = self.logit_scale * image_embeds @ self.label_embeds(prompts).T  # (images, labels)
        scores = torch.from_numpy(logits).softmax(dim=-1)
        ranked = scores.sort(dim=-1, descending=True, stable=True)
        return [
            [{"label": labels[index], "score": score} for index, score in zip(order, row, strict=True)]
            for order, row in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]

    def embed_images(self, images: Iterable[Image.Image]) -> np.ndarray:
        """
        Embed images as float32 unit rows `(images, dim)`.

        Each image is reduced to the model's size before the next one is taken from the iterable.
        """
        pixels = [self.image_processor(image, return_tensors="pt")["pixel_values"] for image in images]
        batches = [torch.cat(pixels[start : start + BATCH_SIZE]) for start in range(0, len(pixels), BATCH_SIZE)]
        return self.run(self.model.get_image_features, [{"pixel_values": batch} for batch in batches])

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts, cut at the model's maximum number of tokens, as float32 unit rows `(texts, dim)`."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # keeps padding short
        batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        options = {"padding": True, "truncation": True, "max_length": self.max_tokens, "return_tensors": "pt"}
        tokens = [self.tokenizer([texts[index] for index in batch], **options) for batch in batches]
        inputs = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in tokens]
        return self.run(self.model.get_text_features, inputs)[np.argsort(order)]

    @torch.inference_mode()
    def run(self, features: Callable, batches: list[dict[str, torch.Tensor]]) -> np.ndarray:
        outputs = [features(**{name: t.to(self.device) for name, t in batch.items()}) for batch in batches]
        embeds = torch.cat([output.pooler_output.float().cpu() for output in outputs])
        embeds = torch.nn.functional.normalize(embeds, dim=-1)
        if not embeds.isfinite().all():
            raise FloatingPointError("an embedding of the model is not finite")
        return embeds.numpy()


def check_folder(folder: Path) -> None:
    # An adapter has no config.json; its own configuration names a base model in another repository.
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a model folder: it has no config.json")
    # An `auto_map` may name a class as `owner/name--module.Class`. transformers would run the newest code of the other
    # repository, whatever revision of the model is pinned.
    classes = []
    for path in folder.glob("*config.json"):
        try:
            json.loads(path.read_bytes(), object_hook=lambda fields: classes.append(fields.get("auto_map")) or fields)
            named = str(classes)
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deeply") from error
        if "--" in named:
            raise ValueError(f"{path}: auto_map names code of another repository, whose revision is not pinned")
    for path in folder.glob("*.safetensors.index.json"):
        names = json.loads(path.read_bytes())["weight_map"].values()
        if bad := [name for name in names if not name.endswith(".safetensors")]:
            raise ValueError(f"{path} names {bad[0]}, which transformers would unpickle")


def read_request(data: dict) -> tuple[dict, dict]:
    if not isinstance(data, dict) or "inputs" not in data:
        raise InputError('a request is {"inputs": …} or {"inputs": …, "parameters": …}')
    inputs, parameters = data["inputs"], data.get("parameters") or {}
    inputs = dict(inputs) if isinstance(inputs, dict) else {"image": inputs}
    if not isinstance(parameters, dict):
        raise InputError(f"parameters must be an object, not {describe(parameters)}")

    # Labels and template may also be in `inputs`: move them to the parameters.
    known, parameters = {"candidate_labels", "hypothesis_template"}, dict(parameters)
    for name in known & inputs.keys():
        if name in parameters:
            raise InputError(f"{name} is in both inputs and parameters: send it once")
        parameters[name] = inputs.pop(name)

    # Refuse unknown fields and impossible combinations.
    if unknown := [str(name)[:50] for name in [*(inputs.keys() - {"image", "text"}), *(parameters.keys() - known)]]:
        fields = ", ".join(["image", "text", *sorted(known)])
        raise InputError(f"unknown field {sorted(unknown)[0]!r}: the known fields are {fields}")
    if len(inputs) != 1:
        raise InputError("inputs needs either image or text; send the labels for an image as candidate_labels")
    if "candidate_labels" not in parameters and "hypothesis_template" in parameters:
        raise InputError("hypothesis_template needs candidate_labels")
    if "text" in inputs and parameters:
        raise InputError("candidate_labels need an image, not a text")
    return inputs, parameters


def read_labels(parameters: dict) -> tuple[list[str], tuple[str, ...]]:
    """Return the labels of a request, and the template filled with each label."""
    labels, template = parameters["candidate_labels"], parameters.get("hypothesis_template", "{}")
    if isinstance(labels, str):  # in the query of a request with an image body: ?candidate_labels=a,b
        if LIST_AS_TEXT.fullmatch(labels):
            raise InputError("candidate_labels is a list written as text: send a list, or a text such as a, b")
        labels = [label.strip() for label in labels.split(",", MAX_TEXTS)]
    if not isinstance(labels, list):
        raise InputError(f"candidate_labels must be a list of texts, not {describe(labels)}")
    labels = read_texts(labels, "candidate_labels")
    (template,) = read_texts([template], "hypothesis_template")
    if template.count("{}") != 1:
        raise InputError("hypothesis_template must contain {} once, in place of the label")
    return labels, tuple(template.replace("{}", label) for label in labels)  # str.format would run client input


def read_texts(value: str | list, name: str) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    check_number(texts, MAX_TEXTS, name)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{name} must be text, not {describe(text)}")
        if not text.strip():
            raise InputError(f"{name} has an empty text")
        if len(text) > MAX_CHARACTERS:
            raise InputError(f"{name} has a text of {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{name} has a text with half of a surrogate pair, which is not valid Unicode")
    return texts


def check_number(items: list, most: int, name: str) -> None:
    if not items:
        raise InputError(f"{name}: the list is empty")
    if len(items) > most:
        raise InputError(f"{name}: {len(items):,} in one request; at most {most:,} are accepted")


def describe(value: object) -> str:
    """Return the type of a value in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def read_image(image: str | bytes | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, str):
        return open_image(from_base64(image))
    if isinstance(image, bytes):
        return open_image(image)
    raise InputError(f"an image must be a string of base64, not {describe(image)}")


def from_base64(text: str) -> bytes:
    if text[:8].lower().startswith(("http://", "https://")):
        raise InputError("URLs are not fetched: send the image as base64, or as the body of the request")
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise InputError("a data: URL of an image must be data:image/…;base64,…")
    if len(text) > MAX_IMAGE_BYTES * 3 // 2:  # base64 makes three bytes four characters, plus line ends
        raise too_large()
    try:
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except ValueError as error:
        raise InputError('an image must be base64; send a text as {"inputs": {"text": …}}') from error


def too_large() -> InputError:
    return InputError(f"the image has more than {MAX_IMAGE_BYTES // 2**20} MiB")


class TooCostly(ValueError):
    """An image whose file takes far more time or memory than its pixels need."""


class Bounded:
    """
    A file of an image. Raises [`TooCostly`] if Pillow reads more bytes or parts of it than any usual file has.

    Thousands of tags can name the same bytes, a file can have millions of empty parts, and Pillow joins EXIF segments.
    """

    def __init__(self, content: object):
        super().__init__(content)
        self.exif_segments = 0
        self.allow(MAX_HEADER_PARTS, MAX_HEADER_BYTES)

    def allow(self, parts: int, size: int) -> None:
        """Set the numbers of parts and bytes that can be read from now on."""
        self.parts_left, self.bytes_left = parts, size

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.parts_left -= 1
        self.bytes_left -= len(data) if size >= 0 else 0  # a WebP is read at once
        self.exif_segments += data.startswith(b"Exif\0\0")
        if min(self.parts_left, self.bytes_left) < 0 or self.exif_segments > 2:
            raise TooCostly("it has too many parts or too much metadata: save it again as PNG, without metadata")
        return data


class BoundedFile(Bounded, io.BytesIO):
    """Content of an image file, see [`Bounded`]."""


def check_cost(image: Image.Image, content: bytes) -> None:
    """Raise [`TooCostly`] if an image that is not yet decoded needs far more time or memory than its pixels."""
    pixels = image.width * image.height
    if image.tile and image.tile[0][0] in ("bmp_rle", "ppm_plain"):  # slow decoders in Python
        raise TooCostly(f"a {image.format} in this encoding is not read: save it as PNG")
    if image.format == "TIFF":
        if image.tag_v2.get(322, 1) * image.tag_v2.get(323, 1) > max(pixels, 2**24):  # sides of a tile
            raise TooCostly("the tiles of the TIFF are larger than the picture")
        exif = image.getexif()
        for directory in TiffTags.TAGS_V2_GROUPS.keys() & exif.keys():
            exif.get_ifd(directory)  # else read with the pixels, where more bytes are allowed
    if image.format in ("WEBP", "JPEG2000") and pixels > MAX_COSTLY_PIXELS:
        raise TooCostly(
            f"{image.width:,} × {image.height:,} pixels: at most {MAX_COSTLY_PIXELS:,} are accepted in "
            f"{image.format}; cut it into tiles, or save it as TIFF"
        )
    if image.format == "JPEG2000":
        check_blocks(content)


def check_blocks(content: bytes) -> None:
    # The decoder keeps up to 2 kB for each block or precinct of a component, and more for a tile, even without data.
    width = height = bands = tiles = 0
    for found in J2K_SIZ.finditer(content):
        length, right, bottom, left, top, across, down, count = struct.unpack(">H2x6I8xH", found[1])
        if length != 38 + 3 * count:
            continue  # compressed data that looks like a header
        width, height, bands = max(width, right - left), max(height, bottom - top), max(bands, count)
        tiles = max(tiles, (width // max(across, 1) + 1) * (height // max(down, 1) + 1))
    if width * height > MAX_COSTLY_PIXELS:
        raise TooCostly(
            f"{width:,} × {height:,} pixels: at most {MAX_COSTLY_PIXELS:,} are accepted in JPEG 2000; "
            "cut it into tiles, or save it as TIFF"
        )
    blocks = 2 * tiles
    for found in J2K_COD.finditer(content):
        levels, *sides = (found[group][0] for group in (3, 4, 5))
        has_precincts = (found[1] or found[2])[0] & 1
        precincts = content[found.end() : found.end() + levels + 1] if has_precincts else b"\xff" * (levels + 1)
        for level, precinct in zip(range(levels, -1, -1), precincts, strict=False):
            most = (precinct & 15, precinct >> 4)
            across, down = (min(side + 2, size) for side, size in zip(sides, most, strict=True))
            blocks += ((width >> level + across) + 1) * ((height >> level + down) + 1)
        if blocks * bands > MAX_BLOCKS:
            break
    if blocks * bands > MAX_BLOCKS:
        raise TooCostly(f"the JPEG 2000 has more than {MAX_BLOCKS:,} blocks: save it with blocks of 64 × 64 pixels")


def check_exif(image: Image.Image) -> None:
    """Raise [`TooCostly`] if a decoded image has too much EXIF data. Pillow has not parsed it yet."""
    if any(len(image.info.get(name, "")) > MAX_EXIF_BYTES for name in ("exif", "Raw profile type exif")):
        raise TooCostly(f"its EXIF data has more than {MAX_EXIF_BYTES // 2**10} KiB: save it without metadata")


def open_image(content: bytes) -> Image.Image:
    """
    Decode an image file of a client to RGB, turned as its EXIF data says.

    Only the first picture of an animation or of a file with several pages is decoded.

    Raises:
        [`InputError`]: The content is not an image in one of `FORMATS`, is damaged, has color of over 8 or gray of
            over 16 bits per channel, has gray of 16 bits with a maximum below 16,384, exceeds a limit on bytes,
            pixels, scans or the ratio of the sides, or needs far more time or memory than its pixels.
    """
    if len(content) > MAX_IMAGE_BYTES:
        raise too_large()
    if content.startswith(b"\xff\xd8") and sum(1 for _ in JPEG_SCAN.finditer(content)) > MAX_SCANS:
        raise InputError(f"the image is a JPEG of more than {MAX_SCANS} scans")
    try:
        image = Image.open(file := BoundedFile(content), formats=FORMATS)
        check_cost(image, content)
    except TooCostly as error:
        raise InputError(str(error)) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"the image has more than {MAX_PIXELS:,} pixels", "pixels") from error
    except IMAGE_ERRORS as error:
        raise InputError(f"not an image in one of the formats {', '.join(FORMATS)}", "format") from error
    file.allow(MAX_PARTS, 2 * len(content) + MAX_HEADER_BYTES)
    if image.format == "JPEG2000" and image.mode[0] not in "IF":
        first = content.find(J2K_SIZE) + 42  # three bytes for each channel
        if any(depth & 127 > 7 for depth in content[first : first + 3 * len(image.getbands()) : 3]):
            raise too_many_bits()
    return to_rgb(image)


def too_many_bits() -> InputError:
    return InputError(f"the image has more than 8 bits per channel, of which Pillow keeps 8: {RESCALE}", "depth")


def has_too_many_bits(image: Image.Image) -> bool:
    # Of 16 bits of color, Pillow keeps 8. It shows them in the tags of a TIFF, and in the raw mode before decoding.
    bits, decoder = max(getattr(image, "tag_v2", {}).get(258, (8,))), str(getattr(image, "tile", [])[:1])
    return image.mode[0] not in "IF" and (bits > 8 or any(raw in decoder for raw in RAW_16_BITS))


def to_rgb(image: Image.Image) -> Image.Image:
    # Count the pixels before they are decoded.
    width, height = image.size
    size = f"the image has {width:,} × {height:,} pixels"
    if width * height > MAX_PIXELS:
        raise InputError(f"{size}; at most {MAX_PIXELS:,} are accepted", "pixels")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(f"{size}: one side is over {MAX_RATIO} times the other", "narrow")
    try:
        is_reduced = has_too_many_bits(image)
        image.load()
        check_exif(image)
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except TooCostly as error:
        raise InputError(str(error)) from error
    except IMAGE_ERRORS as error:
        raise InputError("the image is damaged or cut off", "damaged") from error

    if is_reduced:
        raise too_many_bits()
    # `ImageOps.exif_transpose` writes the EXIF data again, and fails on fields that a camera wrote carelessly.
    if (turn := TURNS.get(orientation)) is not None:
        image = image.transpose(turn)

    # Like the image processor, scale 16 bits to 8 and put a white background behind transparent pixels.
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        if pixels.max() < 2**14:
            would = f"the image has 16 bits, a maximum of {pixels.max()} and would be black: {RESCALE}"
            raise InputError(would, "depth")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError("the image has 32 bits per channel in an unknown range: send 8 or 16 bits", "depth")
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    except ValueError as error:  # Pillow has no conversion for some modes
        raise InputError(f"the image has mode {image.mode}, which cannot be converted to RGB") from error
    image.info.clear()  # else a reader of the EXIF data turns the image again
    return image
