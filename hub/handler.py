"""The model as a service: what Hugging Face Inference Endpoints start, and what the Space calls.

This file travels in every model folder and needs nothing of this repository: the Inference Toolkit imports it from
there, makes one `EndpointHandler(folder)` and calls it with the body of each request:

    {"inputs": IMAGE, "parameters": {"candidate_labels": ["an airport", "a port"]}}          scores of the labels
    {"inputs": {"image": IMAGE, "candidate_labels": [...]}, "parameters": {"hypothesis_template": "Imagem: {}."}}
    {"inputs": {"image": IMAGE}}, {"inputs": {"text": "um porto"}}                           embeddings of unit length

IMAGE is base64, a `data:` URL, an http(s) URL, or what the toolkit makes of an `image/*` body; a list of images or
texts gets a list of answers. The first form is that of the task `zero-shot-image-classification`.

The toolkit sends `str(exception)` to the client with status 400. So what a client did wrong is an [`InputError`] of
one line, and of any other failure the client learns only that there was one.
"""

import base64
import http.client
import io
import ipaddress
import json
import logging
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import numpy as np
import torch
from PIL import ExifTags, Image
from safetensors import SafetensorError, safe_open
from transformers import AutoModel, AutoProcessor

MAX_IMAGES = 32  # of a call
MAX_IMAGE_BYTES = 20 * 2**20  # of an encoded image
MAX_PIXELS = 50_000_000  # of an image, known from its header before it is decoded
MAX_RATIO = 50  # of an image's longer side to its shorter one, which is brought to the model's size
MAX_SCANS = 50  # of a JPEG, which are ten if it is progressive; each decodes the whole picture anew
MAX_TEXTS = 256  # texts or labels of a call
MAX_LETTERS = 1000  # of a text, a label or a template; the model reads as many tokens as it was made for
MAX_URL_LETTERS = 2048
MAX_REDIRECTS = 3
DOWNLOAD_SECONDS = 10.0  # for all images of a call together, from the look-up of the first host to the last byte
PORTS = (80, 443)
REDIRECTS = (301, 302, 303, 307, 308)
URL_SIGNS = "/%:@!$&'()*+,;=~?"  # that stay as they are in path and query
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000")  # Pillow's others are rare, or start programs

BATCH_SIZE = 32  # images or texts that go through a tower together
# Each at most `MAX_TEXTS` times 512 numbers, and as the key label and template, twice `MAX_LETTERS` of 4 bytes: 41 MB.
CACHED_LABEL_SETS = 16
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")
JPEG_START = b"\xff\xd8"
# The head of a scan of one to four components. The two bytes alone also stand in what follows a picture, such as the
# video of a phone's.
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
TURNS = {  # by the orientation in EXIF data
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's plugins raise for bytes that are no image, only half of one, or one of absurd size. A TIFF whose fields
# are of another type than they should be, or missing, raises the second line.
IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # not IPv4 in disguise, not NAT64, not local
# Of public ranges, but from inside Azure's and Oracle's machines their own services.
CLOUD_SERVICES = [ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24")]

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """The input is wrong. The message is one line for whoever sent it."""


class EndpointHandler:
    """
    A model with its processor, ready to answer.

    Args:
        path (`str`, *optional*, defaults to `""`): The model folder; by default the one that this file lies in.

    Raises:
        `ValueError`: The folder lacks weights that the model needs, or a tokenizer; its weights are damaged; or it
            takes code from another repository.
        `OSError`: It is no model folder, or its weights are not in safetensors.
    """

    def __init__(self, path: str = ""):
        folder = Path(path) if path else Path(__file__).parent
        check_folder(folder)
        if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
            raise ValueError(f"{folder} has no tokenizer; put its files beside the weights")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, found = AutoModel.from_pretrained(
            folder,
            trust_remote_code=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
        )
        lacking = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
        if lacking:
            names = ", ".join(sorted(lacking)[:3])
            raise ValueError(f"the weights lack {names} in the shape of config.json; they would be random")
        self.model = model.to(self.device).eval()
        self.logit_scale = model.logit_scale.detach().exp().item()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        self.image_processor, self.tokenizer = processor.image_processor, processor.tokenizer
        text = model.config.text_config
        self.max_tokens = min(self.tokenizer.model_max_length, text.max_position_embeddings - text.pad_token_id - 1)
        # The same classes come with call after call.
        self.label_embeds = lru_cache(CACHED_LABEL_SETS)(lambda texts: self.embed_texts(list(texts)))
        # The toolkit decodes bodies of type image/* before they come here: Pillow itself refuses twice this.
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS

    def __call__(self, data: dict) -> list:
        """
        Answers a request.

        Args:
            data (`dict`): `inputs` and perhaps `parameters`, see the head of this file.

        Returns:
            `list`: Of an image with labels, `{"label": …, "score": …}` from the best to the worst, the scores with sum
            one; of an image or a text, its embedding. Of a list, a list of these.

        Raises:
            [`InputError`]: The input is wrong.
            `RuntimeError`: Anything else; the log says what.
        """
        try:
            return self.answer(data)
        except InputError:
            raise
        except Exception as error:
            logger.exception("a request failed")
            raise RuntimeError("the request failed inside the endpoint; its log says why") from error

    def answer(self, data: dict) -> list:
        """The same, with errors as they come."""
        inputs, parameters = read_request(data)
        if "text" in inputs:
            texts = read_texts(inputs["text"], "text")
            embeds = self.embed_texts(texts).tolist()
            return embeds if isinstance(inputs["text"], list) else embeds[0]
        labels = prompts = None
        if "candidate_labels" in parameters:
            labels, prompts = read_labels(parameters)
        image = inputs["image"]
        images = image if isinstance(image, list) else [image]
        check_number(images, MAX_IMAGES, "images")
        image_embeds = self.embed_images(self.read_images(images))
        answers = image_embeds.tolist() if labels is None else self.score(image_embeds, labels, prompts)
        return answers if isinstance(image, list) else answers[0]

    def classify(self, images: Iterable[Image.Image], labels: list[str], hypothesis_template: str = "{}") -> list:
        """
        Scores labels for images.

        Args:
            images (`Iterable[PIL.Image.Image]`): The images.
            labels (`list[str]`): The labels, in any language.
            hypothesis_template (`str`, *optional*, defaults to `"{}"`): A sentence in the language of the labels with
                `{}` in the place of one.

        Returns:
            `list[list[dict]]`: For each image `{"label": …, "score": …}` from the best to the worst.

        Raises:
            [`InputError`]: There are no labels, too many, or the template has no place for one.
        """
        parameters = {"candidate_labels": labels, "hypothesis_template": hypothesis_template}
        labels, prompts = read_labels(parameters)
        return self.score(self.embed_images(images), labels, prompts)

    def score(self, image_embeds: np.ndarray, labels: list[str], prompts: tuple[str, ...]) -> list[list[dict]]:
        """Softmax of the scaled cosines of images `(images, dim)` with prompts, labels in order of it."""
        logits = self.logit_scale * image_embeds @ self.label_embeds(prompts).T
        scores = torch.from_numpy(logits).softmax(dim=-1)
        ranked = scores.sort(dim=-1, descending=True, stable=True)
        return [
            [{"label": labels[index], "score": score} for index, score in zip(order, row, strict=True)]
            for order, row in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]

    def embed_images(self, images: Iterable[Image.Image]) -> np.ndarray:
        """
        Embeddings of images. Each is reduced to the model's size before the next is taken.

        Args:
            images (`Iterable[PIL.Image.Image]`): The images.

        Returns:
            `np.ndarray` of shape `(images, dim)`: float32, unit rows.
        """
        pixels = [self.image_processor(image, return_tensors="pt")["pixel_values"] for image in images]
        batches = [torch.cat(pixels[start : start + BATCH_SIZE]) for start in range(0, len(pixels), BATCH_SIZE)]
        return self.run(self.model.get_image_features, [{"pixel_values": batch} for batch in batches])

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """
        Embeddings of texts, of each as many tokens as the model takes.

        Args:
            texts (`list[str]`): The texts.

        Returns:
            `np.ndarray` of shape `(texts, dim)`: float32, unit rows.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding in a batch
        batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        tokens = [
            self.tokenizer(
                [texts[index] for index in batch],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            for batch in batches
        ]
        inputs = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in tokens]
        return self.run(self.model.get_text_features, inputs)[np.argsort(order)]

    @torch.inference_mode()
    def run(self, features: Callable, batches: list[dict[str, torch.Tensor]]) -> np.ndarray:
        """Batches through a tower: `(rows, dim)`, float32, unit rows."""
        outputs = [features(**{name: t.to(self.device) for name, t in batch.items()}) for batch in batches]
        embeds = torch.cat([output.pooler_output.float().cpu() for output in outputs])
        embeds = torch.nn.functional.normalize(embeds, dim=-1)
        if not embeds.isfinite().all():
            raise FloatingPointError("the model gives an embedding that is not finite")
        return embeds.numpy()

    def read_images(self, images: list) -> Iterator[Image.Image]:
        """The images of a call one by one, those behind URLs within `DOWNLOAD_SECONDS` in all."""
        seconds = DOWNLOAD_SECONDS
        for image in images:
            if isinstance(image, Image.Image):
                yield to_rgb(image)
            elif isinstance(image, str) and image[:8].lower().startswith(("http://", "https://")):
                start = time.monotonic()
                content = download(image, start + seconds, self.may_connect)
                seconds -= time.monotonic() - start
                yield open_image(content)
            elif isinstance(image, str):
                yield open_image(from_base64(image))
            elif isinstance(image, bytes):
                yield open_image(image)
            else:
                raise InputError(f"an image is a string of base64 or a URL, not {describe(image)}")

    def may_connect(self, address: str, port: int) -> bool:
        """Whether the endpoint may ask an IP address for an image: a public one, on the ports of http and https."""
        return is_public(address) and port in PORTS


def check_folder(folder: Path) -> None:
    """
    What has to be known of a model folder before any of its code runs. In `auto_map` a class may be named as one of
    another repository, `owner/name--module.Class`: transformers would run the newest code there, whatever revision of
    this one was pinned.

    Raises:
        `ValueError`: A class is of another repository, a description is not valid JSON, or weights are damaged.
        `OSError`: The folder has no `config.json`.
    """
    if not (folder / "config.json").is_file():  # an adapter's names a model of another repository
        raise FileNotFoundError(f"{folder} is no model folder: there is no config.json")
    classes = []
    for path in folder.glob("*config.json"):
        try:
            json.loads(path.read_bytes(), object_hook=lambda fields: classes.append(fields.get("auto_map")) or fields)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if "--" in str(classes):
            raise ValueError(
                f"{path} takes code from another repository, whose revision is not pinned, by its auto_map"
            )
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} holds no safetensors, or only a part of them: {error}") from error


def read_request(data: dict) -> tuple[dict, dict]:
    """`inputs` as `{"image": …}` or `{"text": …}`, and the parameters, among them the labels wherever they stand."""
    if not isinstance(data, dict) or "inputs" not in data:
        raise InputError('a request is {"inputs": …}, with {"parameters": …} or without')
    inputs, parameters = data["inputs"], data.get("parameters") or {}
    inputs = dict(inputs) if isinstance(inputs, dict) else {"image": inputs}
    if not isinstance(parameters, dict):
        raise InputError(f"parameters is an object, not {describe(parameters)}")
    known, parameters = {"candidate_labels", "hypothesis_template"}, dict(parameters)
    for name in known & inputs.keys():
        if name in parameters:
            raise InputError(f"{name} stands in inputs and in parameters")
        parameters[name] = inputs.pop(name)
    if unknown := [str(name)[:50] for name in [*(inputs.keys() - {"image", "text"}), *(parameters.keys() - known)]]:
        raise InputError(f"unknown field {sorted(unknown)[0]!r}: there are image, text, {', '.join(sorted(known))}")
    if len(inputs) != 1:
        raise InputError("inputs has either an image or a text; texts to compare an image with are candidate_labels")
    if "candidate_labels" not in parameters and "hypothesis_template" in parameters:
        raise InputError("a hypothesis_template needs candidate_labels")
    if "text" in inputs and parameters:
        raise InputError("candidate_labels belong to an image, not to a text")
    return inputs, parameters


def read_labels(parameters: dict) -> tuple[list[str], tuple[str, ...]]:
    """The labels, and the sentence about each that the model reads."""
    labels, template = parameters["candidate_labels"], parameters.get("hypothesis_template", "{}")
    if isinstance(labels, str):  # as in the address of a request whose body is the image
        labels = [label.strip() for label in labels.split(",", MAX_TEXTS)]
    if not isinstance(labels, list):
        raise InputError(f"candidate_labels is a list of texts, not {describe(labels)}")
    labels = read_texts(labels, "candidate_labels")
    (template,) = read_texts(template, "hypothesis_template")
    if template.count("{}") != 1:
        raise InputError("a hypothesis_template has {} once, in the place of the label")
    return labels, tuple(template.replace("{}", label) for label in labels)  # str.format would run what a client wrote


def read_texts(value: str | list, name: str) -> list[str]:
    """One text or a list of them, each sound."""
    texts = value if isinstance(value, list) else [value]
    check_number(texts, MAX_TEXTS, name)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{name} is text, not {describe(text)}")
        if not text.strip():
            raise InputError(f"{name} has a text that is empty")
        if len(text) > MAX_LETTERS:
            raise InputError(f"{name} has a text of {len(text):,} letters, more than {MAX_LETTERS:,}")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"{name} has a text that is no Unicode")
    return texts


def check_number(items: list, most: int, name: str) -> None:
    """Raises [`InputError`] for nothing, and for too much of it."""
    if not items:
        raise InputError(f"{name}: the list is empty")
    if len(items) > most:
        raise InputError(f"{name}: {len(items):,} are more than {most:,}, the most that a call may have")


def describe(value: object) -> str:
    """The type of a value as JSON has it."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing" if value is None else f"a {type(value).__name__}")


def from_base64(text: str) -> bytes:
    """The bytes that base64, or a `data:` URL of it, stands for."""
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise InputError("a data: URL of an image is data:image/…;base64,…")
    if len(text) > MAX_IMAGE_BYTES * 3 // 2:  # base64 makes three bytes four letters, and line ends add some
        raise too_large()
    try:
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except ValueError as error:
        raise InputError(
            'an image is base64, or a URL that begins with http:// or https://; a text goes as {"inputs": {"text": …}}'
        ) from error


def too_large() -> InputError:
    """The error for an encoded image that is too large."""
    return InputError(f"the image has more than {MAX_IMAGE_BYTES // 2**20} MiB")


def open_image(content: bytes) -> Image.Image:
    """
    Decodes an image that someone sent.

    Args:
        content (`bytes`): A JPEG, PNG, WebP, TIFF, GIF, BMP or JPEG 2000. Of an animation the first picture counts.

    Returns:
        `PIL.Image.Image`: RGB, turned as its EXIF data says.

    Raises:
        [`InputError`]: Too many bytes or pixels, too long and narrow, damaged, of more than 16 bits, or no image.
    """
    if len(content) > MAX_IMAGE_BYTES:
        raise too_large()
    if content.startswith(JPEG_START) and sum(1 for _ in JPEG_SCAN.finditer(content)) > MAX_SCANS:
        raise InputError(f"the image is a JPEG of more than {MAX_SCANS} scans")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"the image has more than {MAX_PIXELS:,} pixels") from error
    except IMAGE_ERRORS as error:
        raise InputError("this is no image; JPEG, PNG, WebP, TIFF, GIF, BMP and JPEG 2000 are taken") from error
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """
    A client's image as RGB: turned as its EXIF data says, over white where it is transparent, 16 bits brought to 8 by
    their range as the image processor does. Its pixels are counted before they are decoded.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"the image has {width:,} × {height:,} pixels; more than {MAX_PIXELS:,} are not taken")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(f"the image has {width:,} × {height:,} pixels; a side may be {MAX_RATIO} times the other")
    try:
        image.load()
        # `ImageOps.exif_transpose` writes the EXIF data anew, and fails where a camera's is not as it should be.
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        if turn is not None:
            image = image.transpose(turn)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise InputError("the image has 32 bits a channel, whose range is not known; send 8 or 16 bits")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        image.info.clear()  # whoever reads its EXIF data again would turn it once more
        return image
    except InputError:
        raise
    except IMAGE_ERRORS as error:
        raise InputError("the image is damaged or cut off") from error


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: no private, local, shared, multicast or translated one."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        return ip in GLOBAL_UNICAST and ip.is_global and ip.sixtofour is None and ip.teredo is None
    is_service = any(ip in network for network in CLOUD_SERVICES)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not is_service


def download(url: str, deadline: float, may_connect: Callable[[str, int], bool]) -> bytes:
    """
    What lies behind a URL. No proxy is asked, whatever the environment says: it would look up the host anew.

    Args:
        url (`str`): An http or https URL.
        deadline (`float`): When to give up, by `time.monotonic()`.
        may_connect (`Callable`): Whether an IP address and a port may be asked. Each host is looked up once, and the
            connection goes to the very address that was judged; after each redirect anew.

    Raises:
        [`InputError`]: The URL is refused, or brings nothing in time.
    """
    try:
        for _ in range(MAX_REDIRECTS + 1):
            target = read_url(url)
            with connect(target, deadline, may_connect) as connection:
                answer = ask(connection, target, deadline)
                if answer.status not in REDIRECTS:
                    return read_body(answer)
                url = urljoin(url, answer.headers.get("Location", ""))
    except InputError:
        raise
    except TimeoutError as error:
        raise InputError(f"the URL brings no image within {DOWNLOAD_SECONDS:g} seconds") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(
            "the URL cannot be read: its server refuses, breaks off, has no valid certificate or speaks no HTTP"
        ) from error
    raise InputError(f"the URL leads through more than {MAX_REDIRECTS} redirects")


class Target(NamedTuple):
    """
    A URL in its parts.

    Args:
        scheme (`str`): `"http"` or `"https"`.
        host (`str`): Name or IP address, in ASCII.
        port (`int`): Port.
        request (`str`): Path and query, in ASCII.
    """

    scheme: str
    host: str
    port: int
    request: str


def read_url(url: str) -> Target:
    """A URL in its parts, if it is one that may be fetched."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:
        raise InputError("the URL is not valid") from error
    if parts.scheme not in ("http", "https"):
        raise InputError("the URL is neither http nor https")
    if len(url) > MAX_URL_LETTERS or not host or any(letter <= " " for letter in url):
        raise InputError("the URL is not valid")
    if "@" in parts.netloc:
        raise InputError("the URL has a user name or password in it")
    request = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = port or (443 if parts.scheme == "https" else 80)
    return Target(parts.scheme, host, port, quote(request, safe=URL_SIGNS))


def connect(target: Target, deadline: float, may_connect: Callable[[str, int], bool]) -> socket.socket:
    """A connection, for https with the certificate of the host's name, to an address that may be asked."""
    addresses = look_up(target.host, target.port, deadline)
    addresses = [address for address in addresses if may_connect(address, target.port)]
    if not addresses:  # the same line for hosts that do not exist: it tells nothing about the network here
        raise InputError("the URL has no public address on port 80 or 443")
    for number, address in enumerate(addresses):
        try:
            seconds = remaining(deadline) / (len(addresses) - number)  # one that is silent leaves time for the next
            connection = socket.create_connection((address, target.port), timeout=seconds)
            break
        except OSError as error:  # IPv6 may come first and lead nowhere
            failure = error
    else:
        raise failure
    if target.scheme == "http":
        return connection
    try:
        connection.settimeout(remaining(deadline))  # of the handshake as a whole
        return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)
    except OSError:
        connection.close()
        raise


def look_up(host: str, port: int, deadline: float) -> list[str]:
    """The IP addresses of a host; none if it is not known. In a thread, since the look-up has no time limit."""
    pool = ThreadPoolExecutor(1)
    try:
        found = pool.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(remaining(deadline))
    except NoAnswer as error:
        raise TimeoutError from error
    except socket.gaierror:
        return []
    finally:
        pool.shutdown(wait=False)
    return list(dict.fromkeys(address[0] for *_, address in found))


def remaining(deadline: float) -> float:
    """Seconds until then; `TimeoutError` if there are none."""
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


class TimedReader(io.RawIOBase):
    """A connection to read from until a deadline, however few bytes come at a time."""

    def __init__(self, connection: socket.socket, deadline: float):
        self.connection, self.deadline = connection, deadline

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """What is there."""
        self.connection.settimeout(remaining(self.deadline))
        return self.connection.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """As `http.client.HTTPResponse` asks for it."""
        return io.BufferedReader(self)


def ask(connection: socket.socket, target: Target, deadline: float) -> http.client.HTTPResponse:
    """Sends a GET and reads the head of the answer."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    standard = target.port == (443 if target.scheme == "https" else 80)  # which a signed URL does not name
    head = [
        f"GET {target.request} HTTP/1.1",
        f"Host: {host}" if standard else f"Host: {host}:{target.port}",
        "User-Agent: rsmclip",
        "Accept: image/*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    connection.settimeout(remaining(deadline))
    connection.sendall("\r\n".join([*head, "", ""]).encode("ascii"))
    answer = http.client.HTTPResponse(TimedReader(connection, deadline), method="GET")
    answer.begin()
    return answer


def read_body(answer: http.client.HTTPResponse) -> bytes:
    """The content of an answer, if it is all right and not too large."""
    if answer.status != 200:
        raise InputError(f"the server of the URL answers with status {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise InputError("the server of the URL sends the image in a compressed form that was not asked for")
    if (answer.length or 0) > MAX_IMAGE_BYTES:
        raise too_large()
    content = answer.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise too_large()
    return content
