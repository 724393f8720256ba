"""What the Space answers: HTML in the user's language from a user's image and words, without a word of Gradio."""

import re
from functools import lru_cache
from html import escape
from pathlib import Path
from types import ModuleType

from PIL import Image

from .gallery import Gallery
from .texts import DEFAULT, LABELS, LANGUAGES, QUERIES, say

MOST_LABELS = 50
MOST_LETTERS = 300  # of a query, a label or a sentence
FOUND = 12  # images that a search shows
COMPARED = 5  # images that a comparison shows for each language
CACHED_TEXTS = 4096

# Things to search for with a click: each in another language, to show that any will do.
CHIPS = (
    ("harbour", "ko"),
    ("forest", "fr"),
    ("stadium", "zh"),
    ("solar_farm", "de"),
    ("desert", "ru"),
    ("airport", "pt"),
)


class Refusal(ValueError):
    """The message says, in the user's language, what the user has to change."""


class UnusableImage(Refusal):
    """The uploaded file is no image, or too much of one."""


class Answers:
    """
    Answers from a model and a gallery.

    Args:
        handler (`ModuleType`): The module `handler.py`.
        model (`EndpointHandler`): Its handler.
        gallery ([`Gallery`]): The images to search.
    """

    def __init__(self, handler: ModuleType, model: object, gallery: Gallery):
        self.handler, self.model, self.gallery = handler, model, gallery
        self.examples = gallery.examples(list(QUERIES), LABELS)
        self.embed_text = lru_cache(CACHED_TEXTS)(lambda text: model.embed_texts([text])[0])

    def open(self, path: str, language: str) -> Image.Image:
        """
        An uploaded image.

        Raises:
            [`UnusableImage`]: It is none, or too large.
        """
        if not Path(path).is_file():  # deleted since
            raise UnusableImage(say(language, "no_image"))
        if Path(path).stat().st_size > self.handler.MAX_IMAGE_BYTES:
            raise UnusableImage(say(language, "too_large", megabytes=self.handler.MAX_IMAGE_BYTES // 2**20))
        try:
            return self.handler.open_image(Path(path).read_bytes())
        except ValueError as error:
            megapixels = self.handler.MAX_PIXELS // 10**6
            raise UnusableImage(say(language, "bad_image", megapixels=megapixels)) from error

    def classify(self, path: str | None, labels: str, sentence: str, language: str) -> str:
        """
        How well each label fits an image.

        Args:
            path (`str`, *optional*): File of the image.
            labels (`str`): Labels separated by commas, of any script, semicolons or line breaks.
            sentence (`str`): What the model reads, with `{}` for a label.
            language (`str`): Language of the answer.

        Raises:
            [`Refusal`]: There is no image or label, too many labels, or the sentence has no place for one.
        """
        if not path:
            raise Refusal(say(language, "no_image"))
        names = [name.strip() for name in re.split(r"[,;\n，、；]", labels or "")]
        names = list(dict.fromkeys(name for name in names if name))
        sentence = (sentence or "").strip() or "{}"
        if not names:
            raise Refusal(say(language, "no_labels"))
        if len(names) > MOST_LABELS:
            raise Refusal(say(language, "too_many_labels", found=len(names), limit=MOST_LABELS))
        if sentence.count("{}") != 1 or re.search(r"[{}]", sentence.replace("{}", "")):
            raise Refusal(say(language, "bad_sentence"))
        check_length([*names, sentence], language)
        image = self.open(path, language)
        (scores,) = self.model.classify([image], names, sentence)
        return score_list(scores, language)

    def search_text(self, query: str, language: str) -> str:
        """The images closest to a text. [`Refusal`] if there is none, or too much."""
        query = " ".join((query or "").split())
        if not query:
            raise Refusal(say(language, "no_query"))
        check_length([query], language)
        found = self.gallery.closest(self.embed_text(query), FOUND)
        return self.grid(found, say(language, "found_text", query=query), language)

    def search_image(self, path: str | None, language: str) -> str:
        """The images closest to an uploaded one. [`Refusal`] if there is none, or it cannot be used."""
        if not path:
            raise Refusal(say(language, "no_query"))
        (query,) = self.model.embed_images([self.open(path, language)])
        return self.grid(self.gallery.closest(query, FOUND), say(language, "found_image"), language)

    def search_like(self, index: int, language: str) -> str:
        """The images closest to one of the gallery, without it."""
        found = self.gallery.closest(self.gallery.embeds[index], FOUND, without=index)
        return self.grid(found, say(language, "found_like", image=self.describe(index, language)), language)

    def compare(self, queries: dict[str, str], language: str) -> str:
        """
        The images closest to a query in several languages, and how many of them are those of the first row.

        Args:
            queries (`dict[str, str]`): Language: query; empty ones are left out.
            language (`str`): Language of the answer, which comes first.
        """
        asked = {code: " ".join((text or "").split()) for code, text in queries.items()}
        asked = {code: asked[code] for code in sorted(asked, key=lambda code: code != language) if asked[code]}
        if not asked:
            raise Refusal(say(language, "no_queries"))
        check_length(list(asked.values()), language)
        rows, reference = [], None
        for code, query in asked.items():
            found = self.gallery.closest(self.embed_text(query), COMPARED)
            indices = {index for index, _ in found}
            reference = indices if reference is None else reference
            shared = say(language, "shared", shared=len(indices & reference), count=len(found)) if rows else ""
            images = "".join(f"<li>{self.picture(*match, language)}</li>" for match in found)
            rows.append(
                f'<li><div class="rs-query"><strong lang="{code}">{LANGUAGES[code]}</strong>'
                f'<span lang="{code}">{escape(query)}</span><small>{shared}</small></div><ol>{images}</ol></li>'
            )
        return f'<ol class="rs-compare">{"".join(rows)}</ol>'

    def describe(self, index: int, language: str) -> str:
        """An image in words: its caption in a language or in English, else its class, else its number."""
        captions, label = self.gallery.captions[index], self.gallery.labels[index]
        number = say(language, "unnamed", number=index + 1)
        return captions.get(language) or captions.get(DEFAULT) or (label or "").replace("_", " ") or number

    def picture(self, index: int, cosine: float, language: str) -> str:
        """An image of the gallery with its score."""
        alt = escape(self.describe(index, language))
        return (
            f'<img src="{self.gallery.thumbnails[index]}" alt="{alt}" title="{alt}" data-index="{index}">'
            f'<span class="rs-score">{cosine:.2f}</span>'
        )

    def grid(self, found: list[tuple[int, float]], heading: str, language: str) -> str:
        """Images that are buttons to search for others like them."""
        cells = []
        for index, cosine in found:
            name = escape(say(language, "similar", image=self.describe(index, language)))
            cells.append(
                f'<li><button type="button" data-index="{index}" aria-label="{name} ({cosine:.2f})">'
                f"{self.picture(index, cosine, language)}{bar(max(cosine, 0))}</button></li>"
            )
        cells = f'<ol class="rs-grid">{"".join(cells)}</ol>'
        return f"<h2>{escape(heading)}</h2>{cells}{note(say(language, 'found_note'))}"

    def example_list(self, language: str) -> str:
        """The images of the gallery to classify with a click."""
        cells = []
        for index in self.examples:
            name = escape(say(language, "choose", image=self.describe(index, language)))
            image = f'<img src="{self.gallery.thumbnails[index]}" alt="">'
            cells.append(f'<li><button type="button" data-index="{index}" aria-label="{name}">{image}</button></li>')
        return f'<h2>{escape(say(language, "examples"))}</h2><ul class="rs-examples">{"".join(cells)}</ul>'


def check_length(texts: list[str], language: str) -> None:
    """Raises [`Refusal`] if a text is too long."""
    if (longest := max(map(len, texts))) > MOST_LETTERS:
        raise Refusal(say(language, "too_long", found=longest, limit=MOST_LETTERS))


def bar(share: float) -> str:
    """A bar of a share between zero and one; the figure beside it says the same to those who don't see it."""
    return f'<span class="rs-bar" aria-hidden="true"><span style="width: {100 * share:.1f}%"></span></span>'


def score_list(scores: list[dict], language: str) -> str:
    """Labels with their shares as bars, from the highest."""
    entries = "".join(
        f'<li><span>{escape(entry["label"])}</span><data value="{entry["score"]:.6f}">{entry["score"]:.1%}</data>'
        f"{bar(entry['score'])}</li>"
        for entry in scores
    )
    heading = f"<h2>{escape(say(language, 'scores'))}</h2>"
    return f'{heading}<ol class="rs-scores">{entries}</ol>{note(say(language, "scores_note"))}'


def chips(language: str) -> str:
    """Queries to search with at a click."""
    buttons = "".join(
        f'<button type="button" lang="{code}" data-query="{escape(QUERIES[thing][code])}">'
        f"{escape(QUERIES[thing][code])}</button>"
        for thing, code in CHIPS
    )
    return f'<div class="rs-chips"><span>{escape(say(language, "search_examples"))}</span>{buttons}</div>'


def note(text: str) -> str:
    """Something to know."""
    return f"<p>{escape(text)}</p>"


def message(text: str) -> str:
    """What a user has to change."""
    return f'<p class="rs-message" role="alert">{escape(text)}</p>'
