"""What the Space answers: HTML in the user's language. Nothing here depends on Gradio."""

import re
from functools import lru_cache
from html import escape
from pathlib import Path
from types import ModuleType

from PIL import Image

from .gallery import Gallery
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
            megapixels = self.handler.MAX_PIXELS // 10**6
            raise UnusableImage(say(language, "bad_image", megapixels=megapixels)) from error

    def classify(self, path: str | None, labels: str, sentence: str, language: str) -> str:
        """
        Return the score of each label for an image.

        Args:
            path (`str`, *optional*): File of the image.
            labels (`str`): Labels, separated by commas of any script, semicolons or line breaks.
            sentence (`str`): Hypothesis template with `{}` in place of the label; empty for the labels alone.
            language (`str`): Language of the answer.
        """
        if not path:
            raise Refusal(say(language, "no_image"))
        names = [name.strip() for name in re.split(r"[,;\n，、；]", labels or "")]
        names = list(dict.fromkeys(name for name in names if name))
        sentence = (sentence or "").strip() or "{}"
        if not names:
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

    def search_like(self, index: int, language: str) -> str:
        """Return the images that are closest to an image of the gallery, without that image."""
        found = self.gallery.closest(self.gallery.embeds[index], FOUND, without=index)
        return self.grid(found, say(language, "found_like", image=self.describe(index, language)), language)

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
        """Return the caption of an image in a language or in English, else its class, else its number."""
        captions, label = self.gallery.captions[index], self.gallery.labels[index]
        number = say(language, "unnamed", number=index + 1)
        return captions.get(language) or captions.get(DEFAULT) or (label or "").replace("_", " ") or number

    def picture(self, index: int, cosine: float, language: str) -> str:
        alt = escape(self.describe(index, language))
        return (
            f'<img src="{self.gallery.thumbnails[index]}" alt="{alt}" title="{alt}" data-index="{index}">'
            f'<span class="rs-score">{cosine:.2f}</span>'
        )

    def grid(self, found: list[tuple[int, float]], heading: str, language: str) -> str:
        cells = []  # each image is a button that searches for similar images
        for index, cosine in found:
            name = escape(say(language, "similar", image=self.describe(index, language)))
            cells.append(
                f'<li><button type="button" data-index="{index}" aria-label="{name} ({cosine:.2f})">'
                f"{self.picture(index, cosine, language)}{bar(max(cosine, 0))}</button></li>"
            )
        cells = f'<ol class="rs-grid">{"".join(cells)}</ol>'
        return f"<h2>{escape(heading)}</h2>{cells}{note(say(language, 'found_note'))}"

    def example_list(self, language: str) -> str:
        """Return the images of the gallery that can be classified with a click."""
        cells = []
        for index in self.examples:
            name = escape(say(language, "choose", image=self.describe(index, language)))
            image = f'<img src="{self.gallery.thumbnails[index]}" alt="">'
            cells.append(f'<li><button type="button" data-index="{index}" aria-label="{name}">{image}</button></li>')
        return f'<h2>{escape(say(language, "examples"))}</h2><ul class="rs-examples">{"".join(cells)}</ul>'


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
