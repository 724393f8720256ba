"""The page of the Space: a header above three tabs, its colors, and the server."""

import json
import os
from html import escape
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from .answers import Answers
from .gallery import Gallery
from .routes import picture_routes
from .tabs import QUIET, ClassifyTab, CompareTab, SearchTab, Words
from .texts import DEFAULT, LANGUAGES, preferred_language, say
from .uploads import UploadLimits

FOLDER = Path(__file__).parent
KEPT_SECONDS = 3600  # Gradio deletes files that are older, as often as this
AT_ONCE = 2  # requests that are computed at the same time
WAITING = 40  # requests that may wait; further ones are refused
TABS = {"classify": ClassifyTab, "search": SearchTab, "compare": CompareTab}
TITLES = json.dumps({code: say(code, "title") for code in LANGUAGES})
# Screen readers use the language of the document, and read its title first.
SET_PAGE_LANGUAGE = f"(code) => {{ document.documentElement.lang = code; document.title = {TITLES}[code]; }}"

# Eleven shades each, from the lightest to the darkest, as `gr.themes.Color` takes them.
TEAL = "#eef8f7 #d5eeeb #aedcd8 #7dc3be #4aa5a0 #2b8a86 #1f6f6d #1b5958 #194847 #173c3c #0a2323"
STONE = "#f7f8f7 #eef0ef #dfe3e1 #c5ccc9 #98a29e #6b7672 #515b57 #3f4845 #272e2c #181d1c #0e1211"
FONTS = ["system-ui", "sans-serif"]  # no font is downloaded


def run_app(
    handler: ModuleType, model: object, name: str, gallery: Gallery, is_toy: bool, port: int | None = None
) -> None:
    """
    Serve the page until it is interrupted.

    Args:
        handler (`ModuleType`): The module `handler.py`.
        model (`EndpointHandler`): The model.
        name (`str`): Name of the model on the page.
        gallery ([`Gallery`]): Images to search, embedded by the model.
        is_toy (`bool`): Whether the page says that the model is a toy, trained on drawn scenes.
        port (`int`, *optional*): Port of the server; by default the first free one from 7860.
    """
    serve(build_app(Answers(handler, model, gallery), name, is_toy), gallery, handler.MAX_IMAGE_BYTES, port)


def is_demo_model(folder: Path) -> bool:
    path = folder / "eval_results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return isinstance(results, dict) and results.get("dataset") == "demo"


def build_app(answers: Answers, name: str, is_toy: bool) -> gr.Blocks:
    """Build the page; see [`run_app`] for the arguments. It is in English until the browser names its language."""
    words = Words()
    title = say(DEFAULT, "title")
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        # Header with the choice of the language, then the tabs.
        with gr.Row(elem_id="rs-top"):
            words.add(gr.HTML, lambda code: {"value": header(answers, name, is_toy, code)}, elem_id="rs-header")
            choices = [(own_name, code) for code, own_name in LANGUAGES.items()]
            options = {"value": DEFAULT, "filterable": False, "choices": choices, "elem_id": "rs-language"}
            language = words.add(gr.Dropdown, lambda code: {"label": say(code, "language")}, **options)
        tabs = []
        with gr.Tabs(overflow_behavior="wrap", elem_id="rs-tabs"):
            for key, tab in TABS.items():
                with words.add(gr.Tab, lambda code, key=key: {"label": say(code, f"tab_{key}")}, id=key):
                    tabs.append(tab(answers, words, language))

        # A new language changes every word of the page except the user's own.
        def translate(code: str, *values: Any) -> list:
            rest = iter(values)
            updates = words.update(code)
            for tab in tabs:
                updates += tab.translate(code, *islice(rest, len(tab.inputs)))
            return updates

        inputs = [component for tab in tabs for component in tab.inputs]
        outputs = [component for tab in tabs for component in tab.outputs]
        unseen = QUIET | {"show_progress": "hidden"}
        language.change(translate, [language, *inputs], [*words.components, *outputs], **unseen)
        language.change(None, language, js=SET_PAGE_LANGUAGE)
        blocks.load(first_language, outputs=language, **unseen)
    return blocks


def first_language(request: gr.Request) -> str:
    wanted = request.query_params.get("lang")  # /?lang=ko
    return wanted if wanted in LANGUAGES else preferred_language(request.headers.get("accept-language", ""))


def header(answers: Answers, name: str, is_toy: bool, language: str) -> str:
    gallery, limit = answers.gallery, answers.handler.MAX_IMAGE_BYTES
    count = f"{len(gallery):,}".replace(",", "\u202f")  # the narrow space is understood in every language
    images = say(language, "gallery_tiles" if gallery.tiles else "gallery", name=gallery.name, count=count)
    facts = [say(language, "model", name=name), images]
    toy = f'<p class="rs-toy">{escape(say(language, "toy"))}</p>' if is_toy else ""
    words = {"too-large": say(language, "too_large", megabytes=limit // 2**20), "failed": say(language, "failed")}
    data = " ".join(f'data-{name}="{escape(text)}"' for name, text in words.items())  # script.js shows them
    return (
        f"<h1>{escape(say(language, 'title'))}</h1><p>{escape(say(language, 'subtitle'))}</p>"
        f'<p class="rs-facts">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p>{toy}'
        f'<div id="rs-words" hidden data-limit="{limit}" {data}></div>'
    )


def theme() -> gr.themes.Base:
    teal, stone = (gr.themes.Color(*shades.split()) for shades in (TEAL, STONE))
    return gr.themes.Base(primary_hue=teal, neutral_hue=stone, font=FONTS, font_mono=["monospace"]).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
    )


def serve(blocks: gr.Blocks, gallery: Gallery, max_file_size: int, port: int | None) -> None:
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    looks = {"theme": theme(), "css_paths": FOLDER / "style.css", "favicon_path": FOLDER / "icon.svg"}
    script = (FOLDER / "script.js").read_text(encoding="utf-8")
    limits = Middleware(UploadLimits, largest=max_file_size, kept_seconds=2 * KEPT_SECONDS)
    private = {"share": False, "ssr_mode": False, "enable_monitoring": False, "footer_links": []}
    _, address, _ = blocks.launch(
        **looks,
        **private,
        head=f"<script>{script}</script>",
        app_kwargs={"routes": picture_routes(gallery), "middleware": [limits]},
        server_port=port,
        max_file_size=max_file_size,
        prevent_thread_lock=True,
        quiet=True,
    )
    print(f"{address} (Ctrl+C ends it)", flush=True)
    blocks.block_thread()
