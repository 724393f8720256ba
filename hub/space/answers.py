"""What the Space answers: HTML in the user's language. Nothing here depends on Gradio."""

import re
from functools import lru_cache
from html import escape
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from PIL import Image

from .gallery import Gallery, Unreadable
from .texts import DEFAULT, LABELS, LANGUAGES, QUERIES, say

MAX_LABELS = 50
MAX_CHARACTERS = 300  # of a query, a label or a sentence
FOUND = 12  # images that a search shows
COMPARED = 5  # images that a comparison shows for each language
CACHED_TEXTS = 4096

# Example queries, each in another language to show that any language works.
CHIPS = {"harbour": "ko", "forest": "fr", "stadium": "zh", "solar_farm": "de", "desert": "ru", "airport": "pt"}


class Refusal(ValueError):
    """A request that cannot be answered. The message tells the user what to change, in the user's language."""


class UnusableImage(Refusal):
    """A file that is not an image, is damaged or is too large. The page then clears the field."""


class Shown(NamedTuple):
    """What the page says about an image, in one language and not escaped."""

    place: int
    name: str
    details: tuple[str, ...]
    caption: str  # "" if there is none
    spoken: str  # language of the caption
    description: str


class Answers:
    """
    Answers from a model, which is an `EndpointHandler` of the module `handler`, and a gallery.

    Each method raises [`Refusal`] if the user has to change something.
    """

    def __init__(self, handler: ModuleType, model: object, gallery: Gallery):
        self.handler, self.model, self.gallery = handler, model, gallery
        self.examples = gallery.examples(list(QUERIES), LABELS)
        self.embed_text = lru_cache(CACHED_TEXTS)(lambda text: model.embed_texts([text])[0])

    def open(self, path: str, language: str) -> Image.Image:
        if not Path(path).is_file():  # Gradio deletes uploads after a while
            raise UnusableImage(say(language, "no_image"))
        if Path(path).stat().st_size > self.handler.MAX_IMAGE_BYTES:
            raise UnusableImage(say(language, "too_large", megabytes=self.handler.MAX_IMAGE_BYTES // 2**20))
        try:
            return self.handler.open_image(Path(path).read_bytes())
        except self.handler.InputError as error:
            limits = {"megapixels": self.handler.MAX_PIXELS // 10**6, "ratio": self.handler.MAX_RATIO}
            formats = ", ".join(self.handler.FORMATS)
            raise UnusableImage(say(language, f"image_{error.fault}", formats=formats, **limits)) from error

    def classify(self, path: str | None, labels: str, sentence: str, language: str) -> str:
        """
        Return the score of each label for an image.

        Args:
            path (`str`, *optional*): File of the image.
            labels (`str`): Two or more labels, separated by commas of any script, semicolons or line breaks.
            sentence (`str`): Hypothesis template with `{}` in place of the label; empty for the labels alone.
            language (`str`): Language of the answer.
        """
        if not path:
            raise Refusal(say(language, "no_image"))
        if self.handler.LIST_AS_TEXT.fullmatch(labels or ""):
            raise Refusal(say(language, "bad_labels"))
        names = [name.strip() for name in re.split(r"[,;\n，、；]", labels or "")]
        names = list(dict.fromkeys(name for name in names if name))
        sentence = (sentence or "").strip() or "{}"
        if len(names) < 2:  # one label has 100 % for any image
            raise Refusal(say(language, "no_labels"))
        if len(names) > MAX_LABELS:
            raise Refusal(say(language, "too_many_labels", found=len(names), limit=MAX_LABELS))
        if sentence.count("{}") != 1 or re.search(r"[{}]", sentence.replace("{}", "")):
            raise Refusal(say(language, "bad_sentence"))
        check_length([*names, sentence], language)
        (scores,) = self.model.classify([self.open(path, language)], names, sentence)
        return score_list(scores, language)

    def search_text(self, query: str, language: str) -> str:
        """Return the images that are closest to a text."""
        query = " ".join((query or "").split())
        if not query:
            raise Refusal(say(language, "no_query"))
        check_length([query], language)
        found = self.gallery.closest(self.embed_text(query), FOUND)
        return self.grid(found, say(language, "found_text", query=query), language)

    def search_image(self, path: str | None, language: str) -> str:
        """Return the images that are closest to an uploaded image."""
        if not path:
            raise Refusal(say(language, "no_query"))
        (query,) = self.model.embed_images([self.open(path, language)])
        return self.grid(self.gallery.closest(query, FOUND), say(language, "found_image"), language)

    def search_like(self, place: int, language: str) -> str:
        """Return the images that are closest to an image of the gallery, without that image."""
        found = self.gallery.closest(self.gallery.embeds[place], FOUND, without=place)
        return self.grid(found, say(language, "found_like", image=self.describe(place, language)), language)

    def compare(self, queries: dict[str, str], language: str) -> str:
        """
        Return the images closest to a query in each language, and how many of these the first row also has.

        Args:
            queries (`dict[str, str]`): Language: query; empty queries are left out.
            language (`str`): Language of the answer. Its row is the first.
        """
        asked = {code: " ".join((text or "").split()) for code, text in queries.items()}
        asked = {code: asked[code] for code in sorted(asked, key=lambda code: code != language) if asked[code]}
        if not asked:
            raise Refusal(say(language, "no_queries"))
        check_length(list(asked.values()), language)
        rows, reference = [], None
        for code, query in asked.items():
            found = self.gallery.closest(self.embed_text(query), COMPARED)
            places = {place for place, _ in found}
            reference = places if reference is None else reference
            shared = say(language, "shared", shared=len(places & reference), count=len(found)) if rows else ""
            images = "".join(self.compared(self.shown(place, language), cosine, language) for place, cosine in found)
            rows.append(
                f'<li><div class="rs-query"><strong lang="{code}">{LANGUAGES[code]}</strong>'
                f'<span lang="{code}">{escape(query)}</span><small>{shared}</small></div><ol>{images}</ol></li>'
            )
        return f'<ol class="rs-compare">{"".join(rows)}</ol>'

    def shown(self, place: int, language: str) -> Shown:
        """Return what a page in a language says about an image of the gallery."""
        entry = self.gallery.entry(place)
        spoken = language if language in entry.captions else DEFAULT
        label = (entry.label or "").replace("_", " ")
        named = entry.name or say(language, "unnamed", number=place + 1)
        caption = entry.captions.get(spoken, "")
        description = caption or label or " ".join([named, *entry.details[:1]])
        return Shown(place, named, entry.details, caption, spoken, description)

    def describe(self, place: int, language: str) -> str:
        """Return the caption of an image in a language or in English, else its class, else its name and box."""
        return self.shown(place, language).description

    def example(self, place: int, language: str) -> Image.Image:
        """Return an image of the gallery."""
        try:
            return self.gallery.image(place)
        except Unreadable as error:
            raise Refusal(say(language, "unreadable", image=self.shown(place, language).name)) from error

    def example_list(self, language: str) -> str:
        """Return the images of the gallery that can be classified with a click."""
        cells = []
        for place in self.examples:
            name = escape(say(language, "choose", image=self.describe(place, language)))
            image = self.thumbnail(place, "")
            cells.append(f'<li><button type="button" data-place="{place}" aria-label="{name}">{image}</button></li>')
        return f'<h2>{escape(say(language, "examples"))}</h2><ul class="rs-examples">{"".join(cells)}</ul>'

    def grid(self, found: list[tuple[int, float]], heading: str, language: str) -> str:
        cells = "".join(self.cell(self.shown(place, language), cosine, language) for place, cosine in found)
        cells = f'<ol class="rs-grid">{cells}</ol>'
        return f"<h2>{escape(heading)}</h2>{cells}{note(say(language, 'found_note'))}"

    def cell(self, shown: Shown, cosine: float, language: str) -> str:
        # The image is a button that searches for similar images.
        label = escape(say(language, "similar", image=shown.description))
        details = "".join(f'<small class="rs-details">{escape(detail)}</small>' for detail in shown.details)
        caption = escape(shown.caption)
        return (
            f'<li><button type="button" data-place="{shown.place}" aria-label="{label} ({cosine:.2f})">'
            f"{self.thumbnail(shown.place, shown.description)}</button>{self.link(shown, '', language)}"
            f'<span class="rs-score">{cosine:.2f}</span>{bar(max(cosine, 0))}{name_of(shown)}{details}'
            + (f'<p class="rs-caption" lang="{shown.spoken}" title="{caption}">{caption}</p>' if caption else "")
            + "</li>"
        )

    def compared(self, shown: Shown, cosine: float, language: str) -> str:
        image = self.link(shown, self.thumbnail(shown.place, shown.description), language)
        return f'<li>{image}<span class="rs-score">{cosine:.2f}</span>{name_of(shown)}</li>'

    def thumbnail(self, place: int, alt: str) -> str:
        return f'<img src="thumbnail/{place}?{self.gallery.key}" alt="{escape(alt)}" loading="lazy">'

    def link(self, shown: Shown, content: str, language: str) -> str:
        # A link without content is a symbol on the image, see style.css.
        label = escape(say(language, "open", image=shown.description))
        return (
            f'<a class="rs-open" href="picture/{shown.place}?{self.gallery.key}" target="_blank" rel="noopener" '
            f'title="{label}" aria-label="{label}">{content}</a>'
        )


def name_of(shown: Shown) -> str:
    # A name that is too long loses its beginning, see style.css; the end differs most.
    name = escape(shown.name)
    return f'<span class="rs-name" title="{name}"><bdi>{name}</bdi></span>'


def check_length(texts: list[str], language: str) -> None:
    if (longest := max(map(len, texts))) > MAX_CHARACTERS:
        raise Refusal(say(language, "too_long", found=longest, limit=MAX_CHARACTERS))


def bar(share: float) -> str:
    # Hidden from screen readers, which read the number beside it.
    return f'<span class="rs-bar" aria-hidden="true"><span style="width: {100 * share:.1f}%"></span></span>'


def score_list(scores: list[dict], language: str) -> str:
    entries = "".join(
        f'<li><span>{escape(entry["label"])}</span><data value="{entry["score"]:.6f}">{entry["score"]:.1%}</data>'
        f"{bar(entry['score'])}</li>"
        for entry in scores
    )
    heading = f"<h2>{escape(say(language, 'scores'))}</h2>"
    return f'{heading}<ol class="rs-scores">{entries}</ol>{note(say(language, "scores_note"))}'


def chips(language: str) -> str:
    """Return buttons that search for example queries."""
    buttons = "".join(
        f'<button type="button" lang="{code}" data-query="{escape(QUERIES[thing][code])}">'
        f"{escape(QUERIES[thing][code])}</button>"
        for thing, code in CHIPS.items()
    )
    return f'<div class="rs-chips"><span>{escape(say(language, "search_examples"))}</span>{buttons}</div>'


def note(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def message(text: str) -> str:
    return f'<p class="rs-message" role="alert">{escape(text)}</p>'
