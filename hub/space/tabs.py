"""The three tabs of the Space: their components and events.

Each tab has `inputs` and `outputs`. Its `translate(language, *inputs)` returns the outputs in another language.
"""

from abc import ABCMeta
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from .answers import COMPARED, Answers, Refusal, UnusableImage, chips, message, note
from .texts import DEFAULT, LANGUAGES, QUERIES, SENTENCES, prepared_labels, say

FIRST_QUERY = "harbour"  # shown before the user asks anything
# Options of every event. The functions are no API: programs use the handler. One concurrency_id for all events sets
# one limit on parallel requests.
QUIET = {"api_visibility": "private", "show_progress": "minimal", "concurrency_id": "model"}
# Pixels, the longer side of a gallery image to classify: as a PNG it is far below the limit on uploads. It is a
# multiple of MAX_RATIO of handler.py, so that rounding makes no image too narrow for the handler.
EXAMPLE = 1000
# JavaScript: a button of an HTML component sends its data-* attributes to the server.
ON_CLICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('click', { ...button.dataset });
});"""


class WithoutStub(type(gr.Image)):
    """A metaclass for components. Gradio's own writes a .pyi file beside their source, which may be read-only."""

    def __new__(cls, name: str, bases: tuple, attributes: dict) -> type:
        return ABCMeta.__new__(cls, name, bases, attributes)


class Upload(gr.Image, metaclass=WithoutStub):
    """An image field that passes the file on without decoding it, so that its pixels can be counted first."""

    is_template = True  # the browser shows it as a gr.Image

    def preprocess(self, payload: Any) -> str | None:
        """Return the path of the uploaded file."""
        return payload and payload.path

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Refuse a URL in place of a file: Gradio would download it."""
        if "://" in str(url_or_file_path):
            raise ValueError("URLs are not fetched: upload the image")
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class Words:
    """The components of the page whose words depend on the language."""

    def __init__(self):
        self.components: list[gr.blocks.Block] = []
        self.properties: list[Callable[[str], dict]] = []  # of each component, by language

    def add(self, component: type, properties: Callable[[str], dict], **others: Any) -> Any:
        """Make a component. `properties` maps a language to the properties that depend on it."""
        made = component(**properties(DEFAULT), **others)
        self.components.append(made)
        self.properties.append(properties)
        return made

    def html(self, value: Callable[[str], str], elem_id: str) -> gr.HTML:
        return self.add(gr.HTML, lambda language: {"value": value(language)}, js_on_load=ON_CLICK, elem_id=elem_id)

    def textbox(self, name: str, value: str, max_lines: int = 2, **others: Any) -> gr.Textbox:
        others |= {"lines": 1, "max_lines": max_lines, "elem_id": f"rs-{name}"}
        return self.add(gr.Textbox, lambda language: {"label": say(language, name)}, value=value, **others)

    def upload(self, name: str, **others: Any) -> Upload:
        others |= {"type": "filepath", "format": "png", "sources": ["upload"], "buttons": []}
        words = {"label": name, "placeholder": "drop"}
        return self.add(Upload, lambda language: {key: say(language, text) for key, text in words.items()}, **others)

    def button(self, name: str) -> gr.Button:
        return self.add(gr.Button, lambda language: {"value": say(language, name)}, variant="primary")

    def update(self, language: str) -> list[dict]:
        return [gr.update(**properties(language)) for properties in self.properties]


def show_answer(done: list[gr.events.Dependency], answer: gr.HTML) -> None:
    # Screen readers read the heading of the answer, and the page scrolls to it if it is out of view.
    for event in done:
        event.then(None, js=f"() => showAnswer('{answer.elem_id}')", api_visibility="private")


class ClassifyTab:
    """Scores of labels for an image."""

    def __init__(self, answers: Answers, words: Words, language: gr.Dropdown):
        self.answers = answers
        with gr.Row(elem_classes="rs-columns"):
            # The image, uploaded or from the gallery.
            with gr.Column():
                self.image = words.upload("image", value=self.first(), height=280, elem_id="rs-image")
                examples = words.html(answers.example_list, "rs-examples")

            # The labels, and the scores of the first image.
            with gr.Column():
                options = {"choices": [(name, code) for code, name in LANGUAGES.items()], "filterable": False}
                prepared = words.add(
                    gr.Dropdown,
                    lambda code: {"label": say(code, "prepared_labels"), "value": code},
                    **options,
                    elem_id="rs-prepared",
                )
                labels = words.textbox("labels", prepared_labels(DEFAULT), max_lines=6)
                sentence = words.textbox("sentence", SENTENCES[DEFAULT])
                button = words.button("classify")
                path = self.image.value and self.image.value["path"]
                *_, first = self.classify(DEFAULT, path, labels.value, sentence.value)
                scores = gr.HTML(first, elem_id="rs-scores")
        self.inputs = [self.image, labels, sentence]
        self.outputs = [*self.inputs, scores]
        triggers = [button.click, labels.submit, sentence.submit, self.image.upload]
        done = [
            gr.on(triggers, self.classify, [language, *self.inputs], self.outputs, **QUIET),
            examples.click(self.choose, [language, labels, sentence], self.outputs, **QUIET),
            prepared.input(self.prepare, [prepared, language, self.image], self.outputs, **QUIET),
        ]
        show_answer(done, scores)

    def first(self) -> Any:
        """Return the first example that can be opened; `None` if none can."""
        for place in self.answers.examples:
            try:
                return self.example(place, DEFAULT)
            except Refusal:
                continue
        return None

    def example(self, place: int, language: str) -> Any:
        image = self.answers.example(place, language)
        image.thumbnail((EXAMPLE, EXAMPLE))
        return image

    def classify(self, language: str, image: str | None, labels: str, sentence: str) -> list:
        try:
            return [gr.skip(), gr.skip(), gr.skip(), self.answers.classify(image, labels, sentence, language)]
        except Refusal as refusal:
            image = None if isinstance(refusal, UnusableImage) else gr.skip()
            return [image, gr.skip(), gr.skip(), message(str(refusal))]

    def choose(self, language: str, labels: str, sentence: str, event: gr.EventData) -> list:
        place = int(event.place)
        if place not in self.answers.examples:  # no button of the page; each would become a file
            raise ValueError(f"{place} is not an example")
        try:
            image = self.example(place, language)
        except Refusal as refusal:
            return [None, gr.skip(), gr.skip(), message(str(refusal))]
        path = gr.processing_utils.save_pil_to_cache(image, self.image.GRADIO_CACHE, format="png")
        return [path, *self.classify(language, path, labels, sentence)[1:]]

    def prepare(self, prepared: str, language: str, image: str | None) -> list:
        labels, sentence = prepared_labels(prepared), SENTENCES[prepared]
        updated, _, _, scores = self.classify(language, image, labels, sentence)
        return [updated, labels, sentence, scores]

    def translate(self, language: str, image: str | None, labels: str, sentence: str) -> list:
        """Return the outputs in another language. Labels and sentence stay if the user wrote them."""
        labels = prepared_labels(language) if labels in map(prepared_labels, LANGUAGES) else labels
        sentence = SENTENCES[language] if sentence in SENTENCES.values() else sentence
        updated, _, _, scores = self.classify(language, image, labels, sentence)
        return [updated, labels, sentence, scores]


class SearchTab:
    """Images of the gallery that are closest to a text or an image."""

    def __init__(self, answers: Answers, words: Words, language: gr.Dropdown):
        self.answers = answers
        first = QUERIES[FIRST_QUERY][DEFAULT]
        asked = gr.State(("text", first))  # the search whose results are shown
        with gr.Row(elem_classes="rs-columns"):
            with gr.Column(scale=3):
                attributes = gr.InputHTMLAttributes(enterkeyhint="search", spellcheck=False)
                query = words.textbox("query", first, html_attributes=attributes)
                button = words.button("search")
                shown = words.html(chips, "rs-chips")
            with gr.Column(scale=2):
                image = words.upload("search_image", height=190, elem_id="rs-search-image")
        found = gr.HTML(answers.search_text(first, DEFAULT), js_on_load=ON_CLICK, elem_id="rs-found")
        self.inputs = [asked, query]
        self.outputs = [asked, query, image, found]
        search_text, search_image = partial(self.search, "text"), partial(self.search, "image")
        done = [
            gr.on([button.click, query.submit], search_text, [language, query], self.outputs, **QUIET),
            image.upload(search_image, [language, image], self.outputs, **QUIET),
            shown.click(self.search_chip, [language], self.outputs, **QUIET),
            found.click(self.search_like, [language], self.outputs, **QUIET),
        ]
        show_answer(done, found)

    def search(self, kind: str, language: str, what: str | int | None) -> list:
        # The fields that were not searched become empty, so that the page shows only what its results are for.
        fields = [what if kind == "text" else "", gr.skip() if kind == "image" else None]
        try:
            return [(kind, what), *fields, getattr(self.answers, f"search_{kind}")(what, language)]
        except UnusableImage as refusal:
            return [(kind, what), fields[0], None, message(str(refusal))]
        except Refusal as refusal:
            return [(kind, what), *fields, message(str(refusal))]

    def search_chip(self, language: str, event: gr.EventData) -> list:
        return self.search("text", language, event.query)

    def search_like(self, language: str, event: gr.EventData) -> list:
        return self.search("like", language, int(event.place))

    def translate(self, language: str, asked: tuple, query: str) -> list:
        """Return the outputs in another language. A prepared query is translated if its results are shown."""
        kind, what = asked
        names = next((names for names in QUERIES.values() if query in names.values()), None)
        if kind == "text" and names and what == query:
            query = what = names[language]
        asked, _, updated, found = self.search(kind, language, what)
        return [asked, query, updated, found]


class CompareTab:
    """The results of one query in all languages side by side."""

    def __init__(self, answers: Answers, words: Words, language: gr.Dropdown):
        self.answers = answers
        words.add(gr.HTML, lambda code: {"value": note(say(code, "compare_note", count=COMPARED))}, elem_id="rs-note")
        prepared = words.add(gr.Dropdown, self.choices, value=FIRST_QUERY, elem_id="rs-prepared-queries")
        own = words.add(gr.Accordion, lambda code: {"label": say(code, "own_query")}, open=False, elem_id="rs-own")
        with own, gr.Row(elem_id="rs-fields"):
            self.inputs = [
                gr.Textbox(
                    QUERIES[FIRST_QUERY][code],
                    label=name,
                    lines=1,
                    max_lines=2,
                    min_width=240,
                    elem_id=f"rs-query-{code}",
                    html_attributes=gr.InputHTMLAttributes(lang=code, spellcheck=False),
                )
                for code, name in LANGUAGES.items()
            ]
        button = words.button("compare")
        rows = gr.HTML(answers.compare(QUERIES[FIRST_QUERY], DEFAULT), elem_id="rs-rows")
        self.outputs = [rows]
        triggers = [button.click, *(field.submit for field in self.inputs)]
        done = [
            gr.on(triggers, self.translate, [language, *self.inputs], self.outputs, **QUIET),
            prepared.input(self.prepare, [language, prepared], [*self.inputs, rows], **QUIET),
        ]
        show_answer(done, rows)

    def choices(self, language: str) -> dict:
        things = [(names[language], thing) for thing, names in QUERIES.items()]
        return {"label": say(language, "prepared_queries"), "choices": things}

    def translate(self, language: str, *queries: str) -> list[str]:
        """Return the rows in another language. The queries have the order of `LANGUAGES`."""
        try:
            return [self.answers.compare(dict(zip(LANGUAGES, queries, strict=True)), language)]
        except Refusal as refusal:
            return [message(str(refusal))]

    def prepare(self, language: str, thing: str) -> list[str]:
        queries = [QUERIES[thing][code] for code in LANGUAGES]
        return [*queries, *self.translate(language, *queries)]
