"""The Space in a real browser: started by the command, and pushed to a Hub."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.hub.space.texts import LANGUAGES, QUERIES, SENTENCES, say
from rsmclip.models.folder import make_processor, save_model_folder
from tests.conftest import TINY
from tests.hub_server import HubServer, run_python

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]'")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
PHONE = {"width": 375, "height": 720}
START_SECONDS = 120
# A process that runs a file as a script, in which importing the package is an error.
WITHOUT_PACKAGE = "import runpy, sys; sys.modules['rsmclip'] = None; runpy.run_path('app.py', run_name='__main__')"


@dataclass
class Served:
    address: str
    process: psutil.Process
    log: Path
    model: RSMCLIPModel = None
    processor: object = None
    images: list[Image.Image] = field(default_factory=list)

    def embed_images(self, images: list[Image.Image]) -> np.ndarray:
        with torch.no_grad():
            pixels = self.processor(images=images, return_tensors="pt")
            embeds = self.model.get_image_features(**pixels).pooler_output.double()
        return torch.nn.functional.normalize(embeds).numpy()

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        with torch.no_grad():
            inputs = [self.processor(text=[text], return_tensors="pt") for text in texts]
            embeds = torch.cat([self.model.get_text_features(**each).pooler_output for each in inputs]).double()
        return torch.nn.functional.normalize(embeds).numpy()


@contextmanager
def serve(*command: str, log: Path, **options: object) -> Iterator[tuple[str, psutil.Process]]:
    with log.open("w") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    deadline = time.monotonic() + START_SECONDS
    try:
        while not (match := re.search(r"(http://\S+/) \(Ctrl\+C", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield match[1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except psutil.TimeoutExpired:
            process.kill()
    assert "Traceback" not in log.read_text(), log.read_text()


@contextmanager
def proxy(address: str) -> Iterator[str]:
    """Serve an address under the path /behind/."""
    client = httpx.AsyncClient(base_url=address, timeout=60)

    async def forward(request: Request) -> StreamingResponse:
        url, headers = httpx.URL(request.path_params["path"], query=request.url.query.encode()), request.headers.raw
        asked = client.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await client.send(asked, stream=True)
        close = BackgroundTask(answer.aclose)
        return StreamingResponse(answer.aiter_raw(), answer.status_code, answer.headers, background=close)

    app = Starlette(routes=[Route("/behind/{path:path}", forward, methods=["GET", "POST"])])
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/behind/"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "tiny-model"
    torch.manual_seed(0)
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**TINY)).eval(), make_processor(tokenizer, 32), folder)
    (folder / "eval_results.json").write_text('{"dataset": "demo"}')
    return folder


@pytest.fixture(scope="module")
def served(model_folder, corpus_folder, corpus, tokenizer, tmp_path_factory) -> Iterator[Served]:
    log, env = tmp_path_factory.mktemp("log") / "log", os.environ | {"HF_HOME": str(tmp_path_factory.mktemp("home"))}
    command = [sys.executable, "-m", "rsmclip.hub", "space", str(model_folder), "--gallery", str(corpus_folder)]
    with serve(*command, "--port", str(free_port()), log=log, env=env) as (address, process):
        images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in corpus["test"]]
        model = RSMCLIPModel.from_pretrained(model_folder).eval()
        yield Served(address, process, log, model, make_processor(tokenizer, 32), images)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with playwright.sync_playwright() as running:
        if not chromium and not Path(running.chromium.executable_path).exists():
            pytest.skip("no browser: apt-get install chromium, or playwright install chromium")
        browser = running.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, served) -> Iterator:
    # Opens the page in a new window. In the end, every request went to the app, and no script failed.
    contexts, asked, errors = [], [], []

    def open_page(query: str = "", address: str = served.address, **options: object) -> "playwright.Page":
        options = {"viewport": {"width": 1200, "height": 900}, "locale": "en-US"} | options
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address + query)
        page.locator("#rs-scores li").first.wait_for()
        language = query.partition("lang=")[2] or options["locale"][:2]
        wait_for_heading(page, "#rs-scores", say(language, "scores"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    assert not [url for url in asked if not url.startswith((served.address, "data:", "blob:"))]


def go_to(page, name: str):
    page.get_by_role("tab", name=name, exact=True).click()


def places(page, selector: str) -> list[int]:
    addresses = [image.get_attribute("src") for image in page.locator(f"{selector} img").all()]
    return [int(re.match(r"thumbnail/(\d+)", address)[1]) for address in addresses]


def wait_for_heading(page, answer: str, text: str) -> None:
    page.locator(f"{answer} h2", has_text=text).wait_for()


def assert_closest(page, selector: str, cosines: np.ndarray, count: int) -> None:
    # Images whose cosines differ by less than float32 can tell may change places.
    shown = places(page, selector)
    assert len(set(shown)) == count
    np.testing.assert_allclose(cosines[shown], np.sort(cosines)[::-1][:count], atol=1e-5)


def assert_scores(page, served: Served, image: Image.Image, labels: list[str], sentence: str) -> None:
    texts = served.embed_texts([sentence.replace("{}", label) for label in labels])
    logits = torch.from_numpy(served.embed_images([image]) @ texts.T) * served.model.logit_scale.exp().item()
    items = page.locator("#rs-scores li").all()
    shown = {item.locator("span").first.inner_text(): item.locator("data").get_attribute("value") for item in items}
    expected = dict(zip(labels, logits.softmax(-1)[0].tolist(), strict=True))
    assert {label: float(score) for label, score in shown.items()} == pytest.approx(expected, abs=1e-4)
    assert list(shown) == sorted(shown, key=lambda label: -float(shown[label]))


def set_image(page, field_id: str, path: Path) -> None:
    field = page.locator(field_id)
    if field.get_by_label("Remove Image").count():
        field.get_by_label("Remove Image").click()
    field.locator("input[type=file]").set_input_files(path)


def test_the_first_screen_shows_what_it_does_and_what_it_is(visit, served):
    page = visit()
    assert page.title() == page.locator("h1").inner_text() == say("en", "title")
    facts = page.locator("#rs-header").inner_text()
    assert "tiny-model" in facts and "tiny (test), 36 images" in facts and say("en", "toy") in facts
    assert page.locator("#rs-scores li").count() == 8 and page.locator("#rs-examples button").count() == 8
    page.wait_for_function("document.querySelector('#rs-image img').naturalWidth === 96")
    labels = [names["en"] for names in list(QUERIES.values())[:8]]
    examples = [int(each.get_attribute("data-place")) for each in page.locator("#rs-examples button").all()]
    assert_scores(page, served, served.images[examples[0]], labels, SENTENCES["en"])
    before = page.locator(".rs-scores").inner_html()
    page.locator("#rs-examples button").nth(3).click()
    page.wait_for_function("before => document.querySelector('.rs-scores').innerHTML !== before", arg=before)
    assert_scores(page, served, served.images[examples[3]], labels, SENTENCES["en"])


def test_an_uploaded_image_gets_the_scores_of_labels_in_any_language(visit, served, tmp_path):
    served.images[5].save(tmp_path / "mine.png")
    page = visit()
    page.get_by_label(say("en", "labels")).fill("аэропорт, 항구，une forêt")
    page.get_by_label(say("en", "sentence")).fill("Bild: {}")
    set_image(page, "#rs-image", tmp_path / "mine.png")
    page.locator("#rs-scores li", has_text="аэропорт").wait_for()
    assert_scores(page, served, served.images[5], ["аэропорт", "항구", "une forêt"], "Bild: {}")


def test_a_search_in_korean_finds_the_closest_of_the_gallery_and_an_image_its_likes(visit, served):
    page = visit("?lang=ko")
    go_to(page, say("ko", "tab_search"))
    query = "숲 옆의 강"
    page.get_by_label(say("ko", "query")).fill(query)
    page.get_by_role("button", name=say("ko", "search"), exact=True).click()
    wait_for_heading(page, "#rs-found", query)
    gallery = served.embed_images(served.images)
    assert_closest(page, "#rs-found", gallery @ served.embed_texts([query])[0], 12)
    first = page.locator("#rs-found img").first
    assert re.search("[가-힣]", first.get_attribute("alt"))
    place = places(page, "#rs-found")[0]
    page.locator("#rs-found button").first.click()
    wait_for_heading(page, "#rs-found", say("ko", "found_like", image=""))
    cosines = gallery @ gallery[place]
    cosines[place] = -2
    assert_closest(page, "#rs-found", cosines, 12)


def test_results_show_name_caption_and_score_and_open_in_full_size(visit, served, corpus):
    page = visit("?lang=pt")
    go_to(page, say("pt", "tab_search"))
    cells = page.locator("#rs-found li")
    assert cells.count() == 12
    for cell, place in zip(cells.all(), places(page, "#rs-found"), strict=True):
        row = corpus["test"][place]
        caption = row["captions"]["pt"][0]
        assert (
            cell.locator(".rs-name").inner_text() == cell.locator(".rs-name").get_attribute("title") == row["image_id"]
        )
        assert cell.locator(".rs-caption[lang=pt]").inner_text() == caption
        assert re.fullmatch(r"-?\d\.\d\d", cell.locator(".rs-score").inner_text())
        assert cell.get_by_role("link", name=say("pt", "open", image=caption), exact=True).is_visible()
    tab_to(page, lambda: page.evaluate("document.activeElement.matches('#rs-found a')"))
    with page.context.expect_page() as opened:
        page.keyboard.press("Enter")
    opened.value.wait_for_load_state()
    shown = httpx.get(opened.value.url)
    assert shown.content == corpus["test"][places(page, "#rs-found")[0]]["image"]["bytes"]
    assert opened.value.evaluate("document.images[0].naturalWidth") == 96


def test_thumbnails_are_asked_for_when_they_are_shown(visit):
    page = visit()
    asked = "performance.getEntriesByType('resource').map(each => /thumbnail.([0-9]+)/.exec(each.name)?.[1])"
    page.wait_for_function("document.querySelector('#rs-examples img').complete")
    examples = {int(each.get_attribute("data-place")) for each in page.locator("#rs-examples button").all()}
    assert {int(place) for place in page.evaluate(asked) if place} <= examples
    go_to(page, "Search")
    page.wait_for_function("[...document.querySelectorAll('#rs-found img')].every(image => image.complete)")
    assert {int(place) for place in page.evaluate(asked) if place} >= set(places(page, "#rs-found"))
    assert set(page.locator("#rs-found img").evaluate_all("all => all.map(image => image.naturalWidth)")) == {96}


def test_a_search_by_image_finds_that_image(visit, served, tmp_path):
    served.images[7].save(tmp_path / "mine.png")
    page = visit()
    go_to(page, "Search")
    set_image(page, "#rs-search-image", tmp_path / "mine.png")
    wait_for_heading(page, "#rs-found", say("en", "found_image"))
    assert page.get_by_label(say("en", "query")).input_value() == ""
    assert places(page, "#rs-found")[0] == 7 and page.locator(".rs-score").first.inner_text() == "1.00"
    assert_closest(page, "#rs-found", served.embed_images(served.images) @ served.embed_images(served.images)[7], 12)
    page.locator("#rs-chips button[lang=ru]").click()
    wait_for_heading(page, "#rs-found", QUERIES["desert"]["ru"])
    assert page.get_by_label(say("en", "query")).input_value() == QUERIES["desert"]["ru"]
    page.locator("#rs-search-image input[type=file]").wait_for(state="attached")  # the field is empty again


def test_the_comparison_shows_a_query_in_all_languages_side_by_side(visit, served):
    page = visit()
    go_to(page, "Compare")
    rows = page.locator("#rs-rows .rs-query")
    assert [rows.nth(number).locator("strong").inner_text() for number in range(10)] == list(LANGUAGES.values())
    boxes = [rows.nth(number).bounding_box() for number in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    page.get_by_label(say("en", "prepared_queries")).click()
    page.get_by_role("option", name="stadium").click()
    rows.nth(8).get_by_text(QUERIES["stadium"]["ko"], exact=True).wait_for()
    gallery = served.embed_images(served.images)
    for number, code in enumerate(LANGUAGES):
        cosines = gallery @ served.embed_texts([QUERIES["stadium"][code]])[0]
        assert_closest(page, f"#rs-rows > * ol.rs-compare > li:nth-child({number + 1})", cosines, 5)


def test_an_own_query_does_not_need_all_languages(visit):
    page = visit()
    go_to(page, "Compare")
    page.get_by_role("button", name=say("en", "own_query")).click()
    for name in LANGUAGES.values():
        page.get_by_label(name, exact=True).last.fill("")
    page.get_by_label("한국어", exact=True).last.press("Enter")
    assert page.locator("#rs-rows [role=alert]").inner_text() == say("en", "no_queries")
    page.get_by_label("Italiano", exact=True).last.fill("tre laghi")
    page.get_by_label("Italiano", exact=True).last.press("Enter")
    page.locator("#rs-rows .rs-query").get_by_text("tre laghi").wait_for()
    assert page.locator("#rs-rows .rs-query").count() == 1


def test_a_file_of_50_mb_is_refused_before_it_is_sent_and_by_the_server(visit, served, tmp_path):
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50_000_000))
    page = visit("?lang=fr")
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    set_image(page, "#rs-image", tmp_path / "large.jpg")
    page.locator("#rs-alert").get_by_text(say("fr", "too_large", megabytes=20)).wait_for()
    page.locator("h1").click()
    assert page.locator("#rs-alert").inner_text() == ""
    page.locator("#rs-image button").first.dispatch_event("drop", {"dataTransfer": dropped(page, 21 * 2**20)})
    page.locator("#rs-alert").get_by_text(say("fr", "too_large", megabytes=20)).wait_for()
    assert not [url for url in sent if "upload" in url]
    with (tmp_path / "large.jpg").open("rb") as file:
        answer = httpx.post(f"{served.address}gradio_api/upload", files={"files": file}, timeout=60)
    assert answer.status_code == 413


def test_the_app_gives_away_no_file_and_no_function(served):
    for path in ("/etc/passwd", str(Path(__file__)), "eval_results.json"):
        assert httpx.get(f"{served.address}gradio_api/file={path}").status_code in (403, 404)
    assert httpx.get(f"{served.address}gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert httpx.get(f"{served.address}monitoring", follow_redirects=True).status_code == 403


def test_an_image_of_too_many_pixels_is_refused_without_decoding_it(visit, served, tmp_path):
    Image.new("RGB", (8_000, 8_000)).save(tmp_path / "bomb.png")
    page = visit()
    go_to(page, "Search")
    before = peak_memory(served.process, reset=True)
    set_image(page, "#rs-search-image", tmp_path / "bomb.png")
    alert = page.locator("#rs-found [role=alert]")
    alert.wait_for()
    assert alert.inner_text() == say("en", "image_pixels", megapixels=50)
    page.locator("#rs-search-image input[type=file]").wait_for(state="attached")  # the field is empty again
    assert peak_memory(served.process) < before + 100e6  # its pixels take 256 MB
    assert not page.get_by_text("Traceback").count()


def dropped(page, size: int) -> "playwright.JSHandle":
    script = """size => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(size)], 'large.png', { type: 'image/png' }));
        return transfer;
    }"""
    return page.evaluate_handle(script, size)


def peak_memory(process: psutil.Process, reset: bool = False) -> int:
    if reset:  # count from the present memory
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[1])


@pytest.mark.parametrize("language", ["de", "ru", "ko"])
def test_nothing_is_wider_than_a_phone(visit, language):
    page = visit(f"?lang={language}", viewport=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.lang") == language
    for name in ("classify", "search", "compare"):
        go_to(page, say(language, f"tab_{name}"))
        page.locator("#rs-tabs [id^=rs-]:visible").last.wait_for()
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0
        assert page.evaluate("window.innerWidth") == PHONE["width"]


def test_on_a_phone_the_answer_comes_into_sight(visit):
    page = visit(viewport=PHONE)
    page.get_by_role("button", name="Classify", exact=True).scroll_into_view_if_needed()
    page.locator("#rs-examples button").nth(2).click()
    top = "document.getElementById('rs-scores').getBoundingClientRect().top"
    page.wait_for_function(f"{top} < window.innerHeight / 2")  # it scrolls there
    page.wait_for_timeout(500)  # and stays
    assert 0 <= page.evaluate(top) < PHONE["height"] / 2


def test_the_keyboard_alone_is_enough(visit, served):
    page = visit()
    tab_to(page, lambda: "Search" in focused(page, "innerText") and focused(page, "role") == "tab")
    page.keyboard.press("Enter")
    tab_to(page, lambda: page.evaluate("!!document.activeElement.closest('#rs-query')"))
    page.keyboard.press("Control+A")
    page.keyboard.type("bosque")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    wait_for_heading(page, "#rs-found", "bosque")
    assert_closest(page, "#rs-found", served.embed_images(served.images) @ served.embed_texts(["bosque"])[0], 12)
    tab_to(page, lambda: page.evaluate("!!document.activeElement.closest('#rs-found')"))
    assert focused(page, "ariaLabel").startswith(say("en", "similar", image=""))
    page.keyboard.press("Enter")
    wait_for_heading(page, "#rs-found", say("en", "found_like", image=""))


@pytest.mark.parametrize("key", ["Tab", "Shift+Tab"])
def test_a_list_of_choices_closes_when_the_keyboard_leaves_it(visit, key):
    page = visit()
    page.locator("#rs-prepared input").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("listbox").wait_for()
    page.keyboard.press(key)
    page.get_by_role("listbox").wait_for(state="detached")
    page.wait_for_timeout(300)  # Gradio would open it again, and leave it open
    page.get_by_role("listbox").wait_for(state="detached")


def test_a_failure_is_told_in_the_language_of_the_page_alone(visit):
    page = visit("?lang=pt", locale="ko-KR")
    page.route("**/queue/join**", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    page.get_by_role("button", name=say("pt", "classify"), exact=True).click()
    page.locator("#rs-alert").get_by_text(say("pt", "failed")).wait_for()
    page.locator("[data-testid=toast-text]").wait_for(state="attached")
    text = page.locator("body").inner_text()
    assert "busy" not in text and not re.search("[가-힣]", text.replace("한국어", ""))


def test_a_screen_reader_hears_nothing_of_gradio(visit):
    """Its live region says `common.complete` in pages whose browser is not in English."""
    page = visit(locale="pt-BR")
    regions = page.locator("[aria-live], [role=status], [role=alert]")
    assert regions.count() > 2
    assert (
        regions.evaluate_all("all => all.filter(each => each.checkVisibility() && !each.id.startsWith('rs-'))") == []
    )


def tab_to(page, reached) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if reached():
            return
    raise AssertionError("Tab does not get there")


def focused(page, name: str) -> str:
    return page.evaluate(f"document.activeElement.{name} || ''")


def test_all_buttons_and_images_have_names(visit):
    page = visit()
    for name in ("classify", "search", "compare"):
        go_to(page, say("en", f"tab_{name}"))
        nameless = page.evaluate("""[...document.querySelectorAll('button, input, textarea, img')]
            .filter(each => each.checkVisibility() && each.type !== 'file')
            .filter(each => !(each.ariaLabel || each.innerText || each.alt || each.labels?.length
                              || each.closest('button')?.ariaLabel || each.closest('[data-testid=image]')))
            .map(each => each.outerHTML)""")
        assert not nameless


def test_a_screen_reader_announces_each_answer(visit):
    page = visit()
    handle = page.locator("#rs-status").element_handle()  # one place, there before any answer
    assert (handle.get_attribute("role"), handle.text_content()) == ("status", "")
    assert page.locator("#rs-alert").get_attribute("role") == "alert"
    page.get_by_role("button", name="Classify", exact=True).click()
    page.wait_for_function("([box, text]) => box.textContent === text", arg=[handle, say("en", "scores")])
    go_to(page, "Search")
    page.locator("#rs-chips button[lang=ru]").click()
    page.wait_for_function("([box, query]) => box.textContent.includes(query)", arg=[handle, QUERIES["desert"]["ru"]])
    heading = page.locator("#rs-found").get_by_role("heading", level=2)
    assert heading.inner_text() == handle.text_content() == say("en", "found_text", query=QUERIES["desert"]["ru"])


def test_another_language_changes_every_word_but_the_user_s_own(visit):
    page = visit()
    page.get_by_label(say("en", "sentence")).fill("my own: {}")
    page.get_by_label("Language", exact=True).click()
    page.get_by_role("option", name="Русский").click()
    page.wait_for_function("document.documentElement.lang === 'ru'")
    page.locator("#rs-scores h2", has_text=say("ru", "scores")).wait_for()
    assert page.title() == page.locator("h1").inner_text() == say("ru", "title")
    assert page.get_by_label(say("ru", "sentence")).input_value() == "my own: {}"
    assert QUERIES["harbour"]["ru"] in page.get_by_label(say("ru", "labels")).input_value()
    for name in ("classify", "search", "compare"):
        go_to(page, say("ru", f"tab_{name}"))
        latin = re.findall(r"[A-Za-z][a-z]{3,}", page.locator("#rs-tabs").inner_text())
        others = {"English", "harbour", "Português", "porto", "puerto", "Deutsch", "Hafen", "Nederlands", "haven"}
        chips = {"forêt", "avec", "nombreux", "arbres", "Solarpark", "aeroporto", "Espa", "Fran", "Italiano", "port"}
        assert set(latin) <= others | chips | {"Portugu", "ais"} | {"demo", "test"}, latin  # demo/test_1


def test_the_browser_s_language_is_taken(visit):
    page = visit(locale="it-IT")
    assert page.locator("h1").inner_text() == page.title() == say("it", "title")
    assert page.evaluate("document.documentElement.lang") == "it"


NAMES = ["<img src=x onerror=alert(1)>.png", "quote\"s & 'more'.png", "new\nline.png", "#a?b%2e.png", "한국어.png"]


def test_a_folder_with_any_names_is_searched_behind_a_root_path(browser, model_folder, served, tmp_path):
    folder, log = tmp_path / "a folder", tmp_path / "log"
    (folder / ("deep " * 20)).mkdir(parents=True)
    names = [*NAMES, f"{'deep ' * 20}/last.png"]
    for image, name in zip(served.images, names, strict=False):
        image.save(folder / name)
    served.images[6].save(os.fsencode(folder) + b"/caf\xe9.png", "PNG")
    command = [sys.executable, "-m", "rsmclip.hub", "space", str(model_folder), "--gallery", str(folder)]
    env = os.environ | {"HF_HOME": str(tmp_path / "home"), "GRADIO_ROOT_PATH": "/behind"}
    with serve(*command, "--port", str(free_port()), log=log, env=env) as (address, _), proxy(address) as outside:
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        (folder / NAMES[0]).unlink()
        page.goto(outside)
        page.locator("#rs-scores li").first.wait_for()
        go_to(page, "Search")
        page.locator("#rs-found img").last.scroll_into_view_if_needed()
        page.wait_for_function("[...document.querySelectorAll('#rs-found img')].every(image => image.complete)")
        shown = page.locator("#rs-found .rs-name").all_inner_texts()
        assert set(shown) == {*names, "caf\\udce9.png"} - {NAMES[2]} | {"new\\nline.png"}
        assert not page.locator("#rs-found .rs-caption").count()
        sizes = page.evaluate("[...document.querySelectorAll('#rs-found img')].map(image => image.naturalWidth)")
        assert dict(zip(shown, sizes, strict=True)).pop(NAMES[0]) != 96 and sizes.count(96) == 6  # a placeholder
        long = page.locator(".rs-name", has_text="last.png").locator("bdi")
        edges = "bdi => [bdi.getBoundingClientRect(), bdi.parentElement.getBoundingClientRect()]"
        inside, outside = long.evaluate(f"bdi => ({edges})(bdi).map(box => [box.left, box.right])")
        assert inside[0] < outside[0] - 50 and inside[1] <= outside[1] + 1  # its beginning is cut off, not its end
        page.locator("#rs-found button").first.click()
        wait_for_heading(page, "#rs-found", say("en", "found_like", image=""))
        go_to(page, "Compare")
        assert page.locator("#rs-rows li li").count() == 50
        assert not errors
        page.close()


def test_a_pushed_space_runs_without_the_package(browser, model_folder, corpus_folder, tmp_path):
    with HubServer(root=tmp_path / "hub") as hub, tempfile.TemporaryDirectory() as home:
        hub.repositories |= {"user/model": model_folder, "datasets/user/captions": corpus_folder}
        names = ("--model", "user/model", "--gallery", "user/captions")
        pushed = run_python(hub.endpoint, "-m", "rsmclip.hub", "push-space", "user/shop", *names)
        assert pushed.returncode == 0, pushed.stderr
        space = hub.repositories["spaces/user/shop"]
        assert len(hub.commits) == 1
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
        kept |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": home, "GRADIO_SERVER_PORT": str(free_port())}
        command = (sys.executable, "-c", WITHOUT_PACKAGE)
        with serve(*command, log=tmp_path / "log", cwd=space, env=kept) as (address, _):
            page = browser.new_page()
            page.goto(address)
            page.locator("#rs-scores li").first.wait_for()
            assert "user/model" in page.locator("#rs-header").inner_text()
            go_to(page, "Search")
            page.locator("#rs-chips button[lang=zh]").click()
            wait_for_heading(page, "#rs-found", QUERIES["stadium"]["zh"])
            assert page.locator("#rs-found img").count() == 12
            page.close()
        assert "http" not in (space / "space" / "style.css").read_text().replace("http://www.w3.org/2000/svg", "")
