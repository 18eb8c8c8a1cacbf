"""The pictures of docs/images: the page and the operations page of a running demo, in a browser.

Needs `chromium` and a font for what is shown: make screenshots
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from browser import browser, demo  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WAIT_MS = 60_000
QUALITY = 82
ABOUT = "A keyboard your office will forgive"


def tap(chrome: Browser, url: str) -> None:
    """The page, a moment after a tap."""
    page = opened(chrome, 1240, 800)
    page.goto(f"{url}/")
    for _ in range(30):
        expect(page.locator("#candidates li").first).to_be_visible(timeout=WAIT_MS)
        if page.locator("#title").inner_text() == ABOUT:
            break
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(300)
    expect(page.locator("#bar")).to_be_visible()
    before = page.locator("#bar-text").inner_text()
    page.click("#bar")
    expect(page.locator("#bar-text")).not_to_have_text(before)
    expect(page.locator("#prompt .seg.H")).to_contain_text(before)
    page.wait_for_timeout(1500)
    shoot(page, "page")


def operate(chrome: Browser, url: str) -> None:
    """The operations page, with a minute of numbers."""
    page = opened(chrome, 1240, 900)
    page.goto(f"{url}/operations")
    for number in range(25):
        page.request.get(f"{url}/v1/queries?video_id=en-{number % 6 + 1:03d}&user_id=u{number % 3}")
        page.wait_for_timeout(1000)
    shoot(page, "operations")


def opened(chrome: Browser, width: int, height: int) -> Page:
    context = chrome.new_context(
        viewport={"width": width, "height": height}, locale="en-US", color_scheme="light"
    )
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


def shoot(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.jpg"
    page.screenshot(path=path, type="jpeg", quality=QUALITY)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as url, browser() as chrome:
        tap(chrome, url)
        operate(chrome, url)


if __name__ == "__main__":
    main()
