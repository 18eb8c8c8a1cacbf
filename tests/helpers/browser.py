"""A real browser on a real page: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
READY_S = 120.0
STOP_S = 150.0
"""On servers that outlive it, its topics are deleted."""
PAGE = re.compile(r"The page: (\S+)")


def chromium() -> str:
    """The path of the system's browser. Where there is none the test is skipped; in CI it fails."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        reason = f"none of {', '.join(CHROMIUM)} is installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """The browser, for as long as the block runs."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
        yield opened
        opened.close()


@contextmanager
def demo(run_dir: Path, *arguments: str) -> Iterator[str]:
    """`onebar demo` as a newcomer runs it, once its feed is in; its page's address."""
    log = run_dir / "demo.txt"
    command = [sys.executable, "-P", "-m", "onebar", "demo", "--port", "0"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--run-dir", str(run_dir), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield _page_of(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def _page_of(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        said = log.read_text()
        if "Ctrl-C ends" in said and (found := PAGE.search(said)):
            return found[1].rstrip("/")
        time.sleep(0.05)
    raise AssertionError(f"the demo did not come up:\n{log.read_text()}")


def complaints(page: Page) -> list[str]:
    """What the page complains of from now on: errors and warnings of its console, exceptions,
    dialogs."""
    found: list[str] = []

    def console(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            found.append(said.text)

    def dialog(opened: Dialog) -> None:
        found.append(opened.message)
        opened.dismiss()

    page.on("console", console)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", dialog)
    return found
