"""Take pictures of a running Space: `python tests/space_pictures.py ADDRESS FOLDER [LANGUAGE]`.

Writes each tab on a desktop and on a phone, and `space.png`, which the docs show: a search in Korean, and the
comparison on a phone. The machine needs fonts for Chinese and Korean.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

SCREENS = {"desk": {"width": 1100, "height": 860}, "phone": {"width": 375, "height": 860}}
TABS = ("classify", "search", "compare")
GAP = 24  # pixels between the screens of space.png
WIDTH = 1200  # of space.png


def photograph(page: Page, folder: Path, screen: str) -> None:
    for number, name in enumerate(TABS):
        page.get_by_role("tab").nth(number).click()
        page.wait_for_timeout(700)
        page.screenshot(path=folder / f"{screen}_{name}.png", full_page=True)


def screen_of(page: Page) -> Image.Image:
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    return Image.open(io.BytesIO(page.screenshot()))


def main(address: str, folder: Path, language: str = "en") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages = {}
        for screen, viewport in SCREENS.items():
            pages[screen] = browser.new_page(viewport=viewport, locale=language)
            pages[screen].goto(address)
            pages[screen].locator("#rs-scores li").first.wait_for()
            pages[screen].wait_for_timeout(2000)
            photograph(pages[screen], folder, screen)
        pages["desk"].get_by_role("tab").nth(1).click()
        pages["desk"].locator("#rs-chips button[lang=ko]").click()
        pages["phone"].locator("#rs-rows").scroll_into_view_if_needed()
        pages["phone"].evaluate("document.getElementById('rs-rows').scrollIntoView()")
        screens = [screen_of(page) for page in pages.values()]
        browser.close()
    width = sum(screen.width for screen in screens) + GAP
    picture = Image.new("RGB", (width, screens[0].height), "white")
    picture.paste(screens[0], (0, 0))
    picture.paste(screens[1], (screens[0].width + GAP, 0))
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / width)), Image.Resampling.LANCZOS)
    picture.quantize(256, kmeans=1).save(folder / "space.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
