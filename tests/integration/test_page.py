"""The page, as people use it: a real browser, the real stack, the shipped checkpoint."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import browser, complaints, demo
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

WAIT_MS = 20_000
expect.set_options(timeout=WAIT_MS)
STILL = ("--events", "1200", "--rate", "0")
"""Nobody acts but the tests."""
once = pytest.mark.skipif(
    "ONEBAR_KAFKA_BOOTSTRAP" in os.environ, reason="the browser's part; on embedded servers alone"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo(tmp_path_factory.mktemp("demo"), *STILL) as found:
        yield found


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def context(chrome: Browser, url: str) -> Iterator[BrowserContext]:
    made = chrome.new_context(
        viewport={"width": 1280, "height": 900},
        locale="en-US",
        base_url=url,
        reduced_motion="reduce",
    )
    made.set_default_timeout(WAIT_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must have nothing to complain of."""
    opened = context.new_page()
    heard = complaints(opened)
    yield opened
    assert heard == []


@pytest.fixture
def api(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as http:
        yield http


def bar(page: Page) -> str:
    """What the bar says, once it says something."""
    expect(page.locator("#bar")).to_be_visible(timeout=WAIT_MS)
    return page.locator("#bar-text").inner_text()


def watched(page: Page) -> str:
    """The video on the page, once its changes are followed."""
    expect(page.locator("#candidates li").first).to_be_visible(timeout=WAIT_MS)
    return str(page.evaluate("new URLSearchParams(location.search).get('v')"))


def clicks_of(request: Request) -> list[str]:
    events = json.loads(request.post_data or "[]")
    return [event["query"] for event in events if event["type"] == "click"]


def is_tap(request: Request) -> bool:
    return request.url.endswith("/v1/events") and bool(clicks_of(request))


def send(api: httpx.Client, *events: dict[str, Any]) -> None:
    now = time.time()
    body = [{"event_id": uuid.uuid4().hex, "ts": now, **event} for event in events]
    assert api.post("/v1/events", json=body).status_code == 202


def others_search(api: httpx.Client, video: str, query: str) -> None:
    send(
        api,
        *(
            {"type": "search", "video_id": video, "user_id": f"other-{n}", "query": query}
            for n in range(40)
        ),
    )


def upload(api: httpx.Client, title: str, **more: Any) -> str:
    video = f"t-{uuid.uuid4().hex[:8]}"
    send(
        api,
        {"type": "video", "video_id": video, "title": title, **more},
        {"type": "impression", "video_id": video, "user_id": "u"},
    )
    return video


def test_a_tap_changes_the_bar_and_says_why(page: Page, api: httpx.Client) -> None:
    page.goto("/")
    watched(page)
    before = bar(page)
    with page.expect_request(is_tap) as sent:
        page.click("#bar")
    assert clicks_of(sent.value) == [before]
    expect(page.locator("#bar-text")).not_to_have_text(before, timeout=WAIT_MS)
    changed = page.locator("#changed")
    expect(changed.locator(".headline")).to_have_text(f"You tapped “{before}”")
    expect(changed.locator(".because li").first).to_contain_text(before)
    expect(changed.locator(".picked")).to_have_text(bar(page))
    expect(page.locator("#said")).to_contain_text(bar(page))
    me = page.locator("#user").input_value()
    history = api.get(f"/v1/users/{me}/history").json()["history"]
    assert [entry["query"] for entry in history] == [before]


def test_a_search_becomes_evidence(page: Page) -> None:
    page.goto("/?u=searcher")
    watched(page)
    wanted = f"{bar(page)} second hand"
    page.keyboard.press("/")
    page.keyboard.type(wanted)
    page.keyboard.press("Enter")
    expect(page.locator("#changed .headline")).to_have_text(f"You searched “{wanted}”")
    expect(page.locator("#prompt .seg.H")).to_contain_text(wanted)
    expect(page.locator("#candidates")).to_contain_text(wanted)


def test_a_click_hits_what_was_read_whatever_others_do_meanwhile(
    page: Page, api: httpx.Client
) -> None:
    page.goto("/?v=en-001&u=reader")
    for turn in range(3):
        video = watched(page)
        read = bar(page)
        before = page.locator("#changed").inner_text()
        others_search(api, video, f"{read} number {'abc'[turn]}")
        expect(page.locator("#changed")).not_to_have_text(before, timeout=WAIT_MS)
        expect(page.locator("#anchors")).to_contain_text("number", timeout=WAIT_MS)
        with page.expect_request(is_tap) as sent:
            page.click("#bar")
        assert clicks_of(sent.value) == [read]
        page.keyboard.press("ArrowDown")
        expect(page.locator("#place")).to_contain_text(f"{turn + 2} /")
        expect(page.locator("#candidates li").first).to_be_visible()


@once
def test_what_others_do_is_offered_and_shown_when_asked_for(page: Page, api: httpx.Client) -> None:
    video = upload(api, "Hand carved chess set from walnut wood")
    page.goto(f"/?v={video}&u=watcher")
    watched(page)
    read = bar(page)
    others_search(api, video, "walnut chess set for beginners")
    expect(page.locator("#pending")).to_contain_text("walnut chess set for beginners")
    assert bar(page) == read
    page.click("#apply")
    expect(page.locator("#bar-text")).to_have_text("walnut chess set for beginners")


@once
def test_the_feed_keeps_its_order_and_tells_of_new_videos(page: Page, api: httpx.Client) -> None:
    page.goto("/")
    first = watched(page)
    place = page.locator("#place").inner_text()
    video = upload(api, "Restoring a rusty cast iron skillet")
    expect(page.locator("#fresh")).to_contain_text("new video")
    assert watched(page) == first
    assert page.locator("#place").inner_text() == place
    page.click("#fresh")
    expect(page.locator("#place")).not_to_have_text(place)
    titles = []
    for _ in range(8):
        titles.append(page.locator("#title").inner_text())
        if titles[-1].startswith("Restoring"):
            break
        page.click("#next")
    assert titles[-1] == "Restoring a rusty cast iron skillet"
    assert video in str(page.evaluate("localStorage.getItem('onebar-order')"))
    page.keyboard.press("ArrowUp")
    expect(page.locator("#title")).not_to_have_text(titles[-1])


@once
def test_a_hostile_text_stays_text(page: Page, api: httpx.Client) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> ceramic mug"
    video = upload(api, evil, caption=f"{evil} caption", author=evil, ocr=evil)
    others_search(api, video, "<b onclick=alert(3)>mug</b> handmade")
    page.goto(f"/?v={video}&u=<svg onload=alert(4)>")
    watched(page)
    expect(page.locator("#title")).to_contain_text("ceramic mug")
    expect(page.locator("#user option[value^='<svg']")).to_have_text("<svg onload=alert(4)>")
    expect(page.locator("#anchors")).to_contain_text("handmade")
    page.click("#bar")
    expect(page.locator("#changed .headline")).to_be_visible()
    assert page.locator("main img, main script, main b[onclick], #user svg").count() == 0
    page.keyboard.press("/")
    page.keyboard.insert_text("mug\u2069\u202e evil")
    page.keyboard.press("Enter")
    headline = page.locator("#changed .headline")
    expect(headline).to_have_text("You searched “\u2068mug evil\u2069”")  # turns nothing round
    expect(page.locator("#changed")).not_to_contain_text("– ms")
    page.goto("/operations")
    expect(page.locator("#parts li").first).to_be_visible()
    policy = httpx.get(f"{api.base_url}/").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_an_uploaded_video_gets_its_first_queries(page: Page) -> None:
    page.goto("/")
    watched(page)
    page.click("#adding summary")
    page.fill("#add [name=title]", "Waterproof hiking boots after 500 km")
    page.fill("#add [name=item_title]", "waterproof leather hiking boots")
    page.click("#add button")
    expect(page.locator("#title")).to_have_text("Waterproof hiking boots after 500 km")
    assert "hiking boots" in bar(page)
    page.fill("#add [name=title]", "Nobody should search here")
    page.check("#add [name=sensitive]")
    page.click("#add button")
    expect(page.locator("#no-bar")).to_contain_text("marked sensitive")
    expect(page.locator("#bar")).to_be_hidden()


@once
def test_a_reload_keeps_what_was_chosen(page: Page) -> None:
    page.goto("/")
    first = watched(page)
    page.click("#next")
    expect(page.locator("#place")).to_contain_text("2 /")
    page.select_option("#user", "maya")
    page.click("#lang")
    page.click("#theme")
    second = watched(page)
    assert second != first
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.reload()
    assert watched(page) == second
    expect(page.locator("#place")).to_contain_text("2 /")
    expect(page.locator("#user")).to_have_value("maya")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    assert page.evaluate("document.documentElement.dataset.theme") == theme


@once
def test_the_keyboard_reaches_and_does_everything(page: Page) -> None:
    page.goto("/?v=en-002&u=typist")
    watched(page)
    before = bar(page)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#bar")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#bar-text")).not_to_have_text(before)
    expect(page.locator("#bar")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#typed")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#open-search")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("#place")).to_contain_text("2 /")
    page.keyboard.press("k")
    expect(page.locator("#place")).to_contain_text("1 /")


@once
def test_the_reference_has_a_form_that_asks_the_server(context: BrowserContext) -> None:
    page = context.new_page()
    heard = complaints(page)
    page.goto("/docs")
    page.get_by_role("link", name="GET /v1/queries", exact=True).click()
    form = page.locator("#get_queries")
    form.get_by_text("Try it").click()
    form.get_by_label("video_id").fill("a/b & <i>")
    form.get_by_label("exclude").fill("boots, tents")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200")
    expect(form.locator(".try pre").last).to_contain_text('"video_id": "a/b & <i>"')
    expect(form.locator(".curl")).to_contain_text("a%2Fb+%26+%3Ci%3E&exclude=boots&exclude=tents")
    form = page.locator("#post_queries")
    form.locator("summary").first.click()
    form.get_by_text("Try it").click()
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".try pre").last).to_contain_text('"results"')
    form = page.locator("#get_video")
    form.locator("summary").first.click()
    form.get_by_text("Try it").click()
    form.get_by_role("textbox").fill("nobody/knows it")
    with page.expect_response("**/v1/videos/nobody%2Fknows%20it") as missing:
        form.get_by_role("button", name="Send").click()
    assert missing.value.status == 404
    expect(form.locator(".try pre").last).to_contain_text("urn:onebar:problem:unknown-video")
    assert len(heard) == 1, "the browser's own word of the 404"
    assert "404" in heard[0]


@once
@pytest.mark.parametrize("path", ["/", "/operations", "/docs"])
@pytest.mark.parametrize(
    ("scheme", "locale", "width"), [("light", "en-US", 1280), ("dark", "zh-CN", 390)]
)
def test_axe_finds_nothing_serious(
    chrome: Browser, url: str, path: str, scheme: Any, locale: str, width: int
) -> None:
    context = chrome.new_context(
        viewport={"width": width, "height": 900}, locale=locale, color_scheme=scheme, base_url=url
    )
    page = context.new_page()
    heard = complaints(page)
    page.goto(path)
    expect(page.locator("#candidates li, #latency td, .op").first).to_be_visible(timeout=WAIT_MS)
    for each in page.locator("details").all():
        each.evaluate("details => { details.open = true }")
    page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
    found = Axe().run(page).response["violations"]
    bad = [
        f"{each['id']}: {node['html'][:160]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert bad == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits"
    context.close()
    assert heard == []


def test_a_rule_made_on_the_operations_page_holds_the_query_back(page: Page) -> None:
    page.goto("/")
    watched(page)
    held = bar(page)
    other = page.context.new_page()
    heard = complaints(other)
    other.goto("/operations")
    expect(other.locator("#parts li")).to_have_count(6)
    expect(other.locator("#parts .bad")).to_have_count(0)
    expect(other.locator("#models .current")).to_be_visible()
    other.click("text=Add a rule")
    other.fill("[name=rule_id]", "test-rule")
    other.fill("#add-rule [name=text]", held)
    other.click("#add-rule button")
    expect(other.locator("#rules")).to_contain_text("test-rule")
    expect(page.locator("#candidates")).not_to_contain_text("nothing")
    page.click("#left-out summary")
    expect(page.locator("#dropped")).to_contain_text("test-rule")
    page.reload()
    watched(page)
    assert bar(page) != held
    other.click("#rules button")
    expect(other.locator("#rules")).not_to_contain_text("test-rule")
    assert heard == []
