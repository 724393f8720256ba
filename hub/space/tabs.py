"""The three tabs of the Space: what lies in each, and what happens there."""

from abc import ABCMeta
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from .answers import COMPARED, Answers, Refusal, UnusableImage, chips, message, note
from .texts import DEFAULT, LANGUAGES, QUERIES, SENTENCES, prepared_labels, say

FIRST_QUERY = "harbour"  # what is shown before anyone has asked
# Nobody calls the app's functions but its page: programs have the model and its handler. No veil over what is shown.
# Without one id in common, each event would have a number of requests at a time of its own.
QUIET = {"api_visibility": "private", "show_progress": "minimal", "concurrency_id": "model"}
# Pixels, the longer side of an image of the gallery to classify: as a PNG it is far below what an upload may have.
# It divides by MAX_RATIO of handler.py, so that no image becomes too narrow by it.
EXAMPLE = 1000
# A button in HTML of our own reports its data-* attributes.
ON_CLICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('click', { ...button.dataset });
});"""


class WithoutStub(type(gr.Image)):
    """Classes of components beside whose source Gradio writes no .pyi file: here, it may not be able to."""

    def __new__(cls, name: str, bases: tuple, attributes: dict) -> type:
        """The class; with no new events, there is nothing else to do for Gradio."""
        return ABCMeta.__new__(cls, name, bases, attributes)


class Upload(gr.Image, metaclass=WithoutStub):
    """An image whose file is handed over unopened, so that its pixels are counted before anyone decodes it."""

    is_template = True  # to the browser it is an Image

    def preprocess(self, payload: Any) -> str | None:
        """The file's path."""
        return payload and payload.path

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """What Gradio does, but for an address in place of a file, which Gradio would download."""
        if "://" in str(url_or_file_path):
            raise ValueError("an image is uploaded, not named by its address")
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class Words:
    """What changes with the language."""

    def __init__(self):
        self.components: list[gr.blocks.Block] = []
        self.properties: list[Callable[[str], dict]] = []  # of each, by language

    def add(self, component: type, properties: Callable[[str], dict], **others: Any) -> Any:
        """
        A new component.

        Args:
            component (`type`): Its class.
            properties (`Callable[[str], dict]`): Those that follow the language, from its code.
            **others (`Any`): The others.
        """
        made = component(**properties(DEFAULT), **others)
        self.components.append(made)
        self.properties.append(properties)
        return made

    def upload(self, name: str, **others: Any) -> Upload:
        """A field for an image."""
        return self.add(
            Upload,
            lambda language: {"label": say(language, name), "placeholder": say(language, "drop")},
            type="filepath", format="png", sources=["upload"], buttons=[], **others,
        )  # fmt: skip

    def button(self, name: str) -> gr.Button:
        """The button of a tab."""
        return self.add(gr.Button, lambda language: {"value": say(language, name)}, variant="primary")

    def update(self, language: str) -> list[dict]:
        """The components in another language."""
        return [gr.update(**properties(language)) for properties in self.properties]


def show_answer(done: list[gr.events.Dependency], answer: gr.HTML) -> None:
    """When an event is done, has the answer's heading read out, and scrolls to it if it is out of sight."""
    for event in done:
        event.then(None, js=f"() => showAnswer('{answer.elem_id}')", api_visibility="private")


class ClassifyTab:
    """
    Labels for an image.

    Args:
        answers ([`Answers`]): What it answers with.
        words ([`Words`]): Where it enters what follows the language.
        language (`gr.Dropdown`): The language.
    """

    def __init__(self, answers: Answers, words: Words, language: gr.Dropdown):
        self.answers = answers
        with gr.Row(elem_classes="rs-columns"):
            with gr.Column():
                self.image = words.upload(
                    "image", value=self.example(answers.examples[0]), height=280, elem_id="rs-image"
                )
                examples = words.add(
                    gr.HTML,
                    lambda code: {"value": answers.example_list(code)},
                    js_on_load=ON_CLICK,
                    elem_id="rs-examples",
                )
            with gr.Column():
                self.prepared = words.add(
                    gr.Dropdown, lambda code: {"label": say(code, "prepared_labels"), "value": code},
                    choices=[(name, code) for code, name in LANGUAGES.items()], filterable=False,
                    elem_id="rs-prepared",
                )  # fmt: skip
                self.labels = words.add(
                    gr.Textbox, lambda code: {"label": say(code, "labels")},
                    value=prepared_labels(DEFAULT), lines=1, max_lines=6, elem_id="rs-labels",
                )  # fmt: skip
                self.sentence = words.add(
                    gr.Textbox, lambda code: {"label": say(code, "sentence")},
                    value=SENTENCES[DEFAULT], lines=1, max_lines=2, elem_id="rs-sentence",
                )  # fmt: skip
                button = words.button("classify")
                first = answers.classify(self.image.value["path"], self.labels.value, self.sentence.value, DEFAULT)
                self.scores = gr.HTML(first, elem_id="rs-scores")
        self.inputs = [self.image, self.labels, self.sentence]
        self.outputs = [self.image, self.labels, self.sentence, self.scores]
        triggers = [button.click, self.labels.submit, self.sentence.submit, self.image.upload]
        done = [
            gr.on(triggers, self.classify, [language, *self.inputs], self.outputs, **QUIET),
            examples.click(self.choose, [language, self.labels, self.sentence], self.outputs, **QUIET),
            self.prepared.input(self.prepare, [self.prepared, language, self.image], self.outputs, **QUIET),
        ]
        show_answer(done, self.scores)

    def example(self, index: int) -> Any:
        """An image of the gallery, reduced if it is large."""
        image = self.answers.handler.open_image(self.answers.gallery.content(index))
        image.thumbnail((EXAMPLE, EXAMPLE))
        return image

    def classify(self, language: str, image: str | None, labels: str, sentence: str) -> list:
        """Updates with the scores, or with what is to be changed; a file that is no image is taken away."""
        try:
            return [gr.skip(), gr.skip(), gr.skip(), self.answers.classify(image, labels, sentence, language)]
        except Refusal as refusal:
            image = None if isinstance(refusal, UnusableImage) else gr.skip()
            return [image, gr.skip(), gr.skip(), message(str(refusal))]

    def choose(self, language: str, labels: str, sentence: str, event: gr.EventData) -> list:
        """Updates with an image of the gallery and its scores."""
        image = self.example(int(event.index))
        path = gr.processing_utils.save_pil_to_cache(image, self.image.GRADIO_CACHE, format="png")
        return [path, *self.classify(language, path, labels, sentence)[1:]]

    def prepare(self, prepared: str, language: str, image: str | None) -> list:
        """Updates with the prepared labels of a language and their scores."""
        labels, sentence = prepared_labels(prepared), SENTENCES[prepared]
        updated, _, _, scores = self.classify(language, image, labels, sentence)
        return [updated, labels, sentence, scores]

    def translate(self, language: str, image: str | None, labels: str, sentence: str) -> list:
        """Updates for another language: labels and sentence too, unless they are the user's own."""
        labels = prepared_labels(language) if labels in map(prepared_labels, LANGUAGES) else labels
        sentence = SENTENCES[language] if sentence in SENTENCES.values() else sentence
        updated, _, _, scores = self.classify(language, image, labels, sentence)
        return [updated, labels, sentence, scores]


class SearchTab:
    """
    Images of the gallery for a text or an image.

    Args:
        answers ([`Answers`]): What it answers with.
        words ([`Words`]): Where it enters what follows the language.
        language (`gr.Dropdown`): The language.
    """

    def __init__(self, answers: Answers, words: Words, language: gr.Dropdown):
        self.answers = answers
        first = QUERIES[FIRST_QUERY][DEFAULT]
        self.asked = gr.State(("text", first))  # what the images that are shown answer
        with gr.Row(elem_classes="rs-columns"):
            with gr.Column(scale=3):
                self.query = words.add(
                    gr.Textbox, lambda code: {"label": say(code, "query")}, value=first, lines=1, max_lines=2,
                    elem_id="rs-query",
                    html_attributes=gr.InputHTMLAttributes(enterkeyhint="search", spellcheck=False),
                )  # fmt: skip
                button = words.button("search")
                shown = words.add(
                    gr.HTML, lambda code: {"value": chips(code)}, js_on_load=ON_CLICK, elem_id="rs-chips"
                )
            with gr.Column(scale=2):
                self.image = words.upload("search_image", height=190, elem_id="rs-search-image")
        self.found = gr.HTML(answers.search_text(first, DEFAULT), js_on_load=ON_CLICK, elem_id="rs-found")
        self.inputs = [self.asked, self.query]
        self.outputs = [self.asked, self.query, self.image, self.found]
        triggers = [button.click, self.query.submit]
        done = [
            gr.on(triggers, self.search_text, [language, self.query], self.outputs, **QUIET),
            self.image.upload(self.search_image, [language, self.image], self.outputs, **QUIET),
            shown.click(self.search_chip, [language], self.outputs, **QUIET),
            self.found.click(self.search_like, [language], self.outputs, **QUIET),
        ]
        show_answer(done, self.found)

    def search(self, language: str, kind: str, what: str | int | None) -> list:
        """Updates with the images found, or with what is to be changed; a file that is no image is taken away."""
        answer = getattr(self.answers, f"search_{kind}")
        try:
            return [(kind, what), gr.skip(), gr.skip(), answer(what, language)]
        except Refusal as refusal:
            image = None if isinstance(refusal, UnusableImage) else gr.skip()
            return [(kind, what), gr.skip(), image, message(str(refusal))]

    def search_text(self, language: str, query: str) -> list:
        """Updates for a query."""
        return self.search(language, "text", query)

    def search_image(self, language: str, image: str | None) -> list:
        """Updates for an uploaded image."""
        return self.search(language, "image", image)

    def search_chip(self, language: str, event: gr.EventData) -> list:
        """Updates for a query that was shown as an example."""
        asked, _, image, found = self.search(language, "text", event.query)
        return [asked, event.query, image, found]

    def search_like(self, language: str, event: gr.EventData) -> list:
        """Updates for one of the images found."""
        return self.search(language, "like", int(event.index))

    def translate(self, language: str, asked: tuple, query: str) -> list:
        """Updates for another language: the query too, if it is a prepared one and is what was asked."""
        kind, what = asked
        names = next((names for names in QUERIES.values() if query in names.values()), None)
        if kind == "text" and names and what == query:
            query = what = names[language]
        asked, _, updated, found = self.search(language, kind, what)
        return [asked, query, updated, found]


class CompareTab:
    """
    A query in all languages side by side.

    Args:
        answers ([`Answers`]): What it answers with.
        words ([`Words`]): Where it enters what follows the language.
        language (`gr.Dropdown`): The language.
    """

    def __init__(self, answers: Answers, words: Words, language: gr.Dropdown):
        self.answers = answers
        words.add(gr.HTML, lambda code: {"value": note(say(code, "compare_note", count=COMPARED))}, elem_id="rs-note")
        prepared = words.add(gr.Dropdown, self.choices, value=FIRST_QUERY, elem_id="rs-prepared-queries")
        with (
            words.add(gr.Accordion, lambda code: {"label": say(code, "own_query")}, open=False, elem_id="rs-own"),
            gr.Row(elem_id="rs-fields"),
        ):
            self.fields = [
                gr.Textbox(
                    QUERIES[FIRST_QUERY][code], label=name, lines=1, max_lines=2, min_width=240,
                    elem_id=f"rs-query-{code}", html_attributes=gr.InputHTMLAttributes(lang=code, spellcheck=False),
                )
                for code, name in LANGUAGES.items()
            ]  # fmt: skip
        button = words.button("compare")
        self.rows = gr.HTML(answers.compare(QUERIES[FIRST_QUERY], DEFAULT), elem_id="rs-rows")
        self.inputs, self.outputs = self.fields, [self.rows]
        triggers = [button.click, *(field.submit for field in self.fields)]
        done = [
            gr.on(triggers, self.compare, [language, *self.fields], self.outputs, **QUIET),
            prepared.input(self.prepare, [language, prepared], [*self.fields, self.rows], **QUIET),
        ]
        show_answer(done, self.rows)

    def choices(self, language: str) -> dict:
        """Label and choices of the prepared queries."""
        things = [(names[language], thing) for thing, names in QUERIES.items()]
        return {"label": say(language, "prepared_queries"), "choices": things}

    def compare(self, language: str, *queries: str) -> list[str]:
        """Updates with the images of each language, or with what is to be changed."""
        try:
            return [self.answers.compare(dict(zip(LANGUAGES, queries, strict=True)), language)]
        except Refusal as refusal:
            return [message(str(refusal))]

    translate = compare

    def prepare(self, language: str, thing: str) -> list[str]:
        """Updates with a prepared query in all languages and its images."""
        queries = [QUERIES[thing][code] for code in LANGUAGES]
        return [*queries, *self.compare(language, *queries)]
