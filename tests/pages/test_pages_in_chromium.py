"""The pages in a real browser: each section shows what was found, and what a file is called stays text."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from discovery.config import Config
from discovery.stages.asset_sets import find_set
from discovery.stages.drift import drift
from discovery.web.app import create_app
from discovery.workspace import open_workspace
from tests.pages.conftest import HOSTILE

pytestmark = [pytest.mark.live]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        assert not os.environ.get("CI"), "CI must have Chromium; tests/install_browser.sh installs it"
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(store_config: Config) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(lambda: None, store_config, lambda: "ana"), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    opened.close()
    assert complaints == []  # also what the content security policy refused


def test_the_overview_shows_both_batches(page: Page, address: str) -> None:
    page.goto(f"{address}/")
    page.wait_for_selector("table")
    assert page.get_by_label("Runs").locator("tbody tr").count() == 2
    assert "127" in page.locator(".numbers").inner_text()  # 100 + 25 textures, a smaller copy, a stranger
    page.locator("summary").last.click()
    page.get_by_text("broken.jpg").wait_for()


def test_the_certified_recall_is_shown_for_rare_pictures_as_for_common_ones(page: Page, address: str) -> None:
    page.goto(f"{address}/")
    rows = page.get_by_label("Recall of search").locator("tbody tr")
    rows.first.wait_for()
    assert [row.split()[0] for row in rows.all_inner_texts()] == ["rare", "middle", "common"]
    assert rows.first.locator("td").count() == 6
    assert "target 0.99" in page.locator("h2", has_text="Recall of search").inner_text()
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/recall.png", full_page=True)


def novel_count(page: Page) -> int:
    """What the link to the novel ones says, which is one at least."""
    name, count = page.get_by_role("group", name="Which candidates").get_by_role("link", name="Novel").inner_text().split()
    assert name == "Novel" and int(count) >= 1
    return int(count)


def test_the_most_novel_asset_stands_beside_its_nearest_neighbour(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    first = page.locator(".card").first
    first.wait_for()
    assert first.locator(".pair img").count() == 2 and first.locator(".also img").count() == 4
    assert HOSTILE in first.inner_text()  # as text
    for picture in first.locator("img").all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_the_novel_are_in_themes_and_the_rare_in_a_list_of_their_own(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    themes = page.locator(".theme")
    themes.first.wait_for()
    assert sum(int(text.split()[0]) for text in themes.locator(".soft").all_inner_texts()) == novel_count(page)
    themes.first.click()
    page.wait_for_url("**/#novel?*theme=0*")
    page.locator(".card.is-novel").first.wait_for()
    page.get_by_role("link", name="Rare").click()
    page.wait_for_url("**/#novel?*show=rare*")
    page.get_by_text("Not novel, but lonelier").or_(page.get_by_text("No candidate of this run is called rare")).first.wait_for()


def test_a_mark_is_made_by_a_click_and_taken_back_by_another(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    button = page.locator(".card").first.get_by_role("button", name="expected")
    button.click()
    page.locator(".card").first.get_by_text("by ana").wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    page.reload()
    page.locator(".card").first.wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    page.locator(".card .picture").first.click()
    page.locator("#detail").get_by_text("by ana").first.wait_for()
    page.keyboard.press("Escape")
    button.click()
    page.locator(".card").first.get_by_text("taken back").wait_for()
    assert button.get_attribute("aria-pressed") == "false"


def test_a_file_name_is_never_markup(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    page.locator(".card .picture").first.click()
    page.locator("dialog dl").wait_for()
    assert HOSTILE in page.locator("dialog").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "Discovery"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_duplicates_show_keeper_and_copy(page: Page, address: str) -> None:
    page.goto(f"{address}/#duplicates")
    group = page.locator(".group").first
    group.wait_for()
    assert "keeper · 160 × 120" in group.inner_text()
    assert "smaller.png" in group.inner_text() and "resized" in group.inner_text() and "differs 0.0" in group.inner_text()


def test_a_version_says_how_it_was_chosen_how_its_splits_are_apart_and_why_a_picture_is_not_in(page: Page, address: str) -> None:
    page.goto(f"{address}/#versions")
    page.get_by_role("link", name="shown@2").click()
    page.get_by_text("How it was chosen").click()
    expect(page.get_by_role("row", name="duplicates a copy of it stands for it 1")).to_be_visible()
    page.get_by_text("Certificate of its splits").click()
    expect(page.get_by_text("all pairs were compared")).to_be_visible()
    field = page.get_by_role("searchbox", name="Asset id or URI")
    field.fill(page.locator("main figure [data-asset]").last.get_attribute("data-asset") or "")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".answer")).to_contain_text("In it, in train: it was selected: it added")


def test_versions_link_into_mlflow(page: Page, address: str) -> None:
    page.goto(f"{address}/#versions")
    page.wait_for_selector("tbody tr")
    row = page.locator("tbody tr").first
    assert "shown@2" in row.inner_text()
    assert "#/models/dataset." in str(row.get_by_role("link", name="MLflow").get_attribute("href"))


def test_a_narrow_dark_screen_needs_no_sideways_scrolling(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    for section in ("overview", "novel", "duplicates", "versions"):
        page.goto(f"{address}/#{section}")
        page.reload()
        page.locator("main > :not(.state)").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, section
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    context.close()


def test_what_is_seen_has_an_address(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    page.get_by_role("group", name="Which candidates").get_by_role("link", name="Novel").click()
    page.wait_for_url(f"{address}/#novel?show=novel")
    expect(page.locator(".card:not(.is-novel)")).to_have_count(0)
    expect(page.locator(".card.is-novel")).to_have_count(novel_count(page))
    page.locator(".card .picture").first.click()
    page.locator("dialog dl").wait_for()
    shared = page.url
    page.keyboard.press("Escape")
    page.wait_for_url(f"{address}/#novel?show=novel")
    assert page.evaluate("document.activeElement.className") == "picture"  # where the reader was
    page.goto("about:blank")
    page.goto(shared)
    page.locator("dialog dl").wait_for()
    assert HOSTILE in page.locator("dialog").inner_text()


def test_the_keyboard_steps_through_pictures_and_sections(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    names = page.locator(".pair figure:first-child .name")
    names.nth(1).wait_for()
    page.locator(".card .picture").first.press("Enter")
    page.locator("dialog dl").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator("#detail-name", has_text=names.nth(1).inner_text()).wait_for()
    page.keyboard.press("ArrowLeft")
    page.locator("#detail-name", has_text=HOSTILE).wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("4")
    page.get_by_role("heading", name="Dataset versions").wait_for()
    assert page.locator("nav [aria-current]").inner_text() == "Versions"


def test_a_version_shows_its_members_by_split(page: Page, address: str) -> None:
    page.goto(f"{address}/#versions")
    page.get_by_role("link", name="shown@2").click()
    page.locator("main > .tiles figure").first.wait_for()
    assert page.locator("main > .tiles figure").count() == 12
    page.get_by_role("group", name="Split").get_by_role("link", name="train").click()
    page.locator(".choice a[aria-current=true]", has_text="train").wait_for()  # the page of the split stands
    page.locator("main > .tiles figure").first.wait_for()
    expect(page.locator("main > .tiles figure").filter(has_not_text="train")).to_have_count(0)
    assert 0 < page.locator("main > .tiles figure").count() < 12


def test_a_kind_of_duplicates_that_does_not_occur_is_said(page: Page, address: str) -> None:
    page.goto(f"{address}/#duplicates?kind=exact")
    page.get_by_text("No group of this kind.").wait_for()


def test_a_first_run_has_nothing_to_compare_with_and_says_so(page: Page, address: str) -> None:
    page.goto(f"{address}/")
    page.get_by_label("Runs").locator("tbody tr").last.get_by_text("no reference yet").wait_for()


def test_an_empty_root_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.route("**/*", lambda route: answer_from(TestClient(create_app(lambda: None, Config(root=str(tmp_path)))), route))
    for section in ("overview", "novel", "duplicates"):
        page.goto(f"http://empty.example/#{section}")
        page.get_by_text("Trigger the DAG visual_discovery").wait_for()
    page.goto("http://empty.example/#versions")
    page.get_by_text("Trigger curate_collection").wait_for()
    assert list(tmp_path.iterdir()) == []  # looking makes nothing
    page.close()


def test_a_failure_is_said_and_can_be_tried_again(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.route("**/api/novel*", lambda route: route.fulfill(status=503, json={"error": {"message": "The store <b>is away</b>."}}))
    page.goto(f"{address}/#novel")
    page.get_by_role("alert").get_by_text("The store <b>is away</b>.").wait_for()
    page.unroute("**/api/novel*")
    page.get_by_role("button", name="Try again").click()
    page.locator(".card").first.wait_for()
    page.route("**/thumbnail/*", lambda route: route.abort())
    page.get_by_role("link", name="Duplicates").click()
    page.get_by_text("no thumbnail").first.wait_for()
    page.close()


def answer_from(client: TestClient, route: Route) -> None:
    answer = client.get(urlsplit(route.request.url).path)
    route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)


@pytest.fixture(scope="module")
def drift_page(store_config: Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A drift report of both batches, as a file of its own."""
    page = tmp_path_factory.mktemp("drift") / "page.html"
    with open_workspace(store_config) as ws:
        first, second = (find_set(f"where:category = '{batch}'", ws) for batch in ("first", "second"))
        page.write_bytes(ws.store.read_file(drift(first, second, ws), "report"))
    return page.as_uri()


def test_a_drift_report_opens_as_a_file_and_shows_what_only_one_set_has(page: Page, drift_page: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(drift_page)
    assert page.locator(".verdict h2").inner_text().endswith(".")
    page.get_by_text("Show them all the same").click()  # one of 26 is not more than chance
    lacking = page.locator(".theme").first
    assert HOSTILE in lacking.inner_text()  # the stranger, its name as text
    for picture in page.locator("img").all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.get_by_text("How it was measured").click()
    expect(page.get_by_text("kernel two-sample test")).to_be_visible()
    assert page.title().startswith("Drift: ") and [url for url in asked if not url.startswith("data:")] == [drift_page]


def test_a_drift_report_needs_no_sideways_scrolling_on_a_dark_phone(browser: Browser, drift_page: str) -> None:
    phone = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    phone.goto(drift_page)
    for summary in phone.locator("summary").all():
        summary.click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    phone.close()
