"""The pages in a real browser: each section shows what was found, and what a file is called stays text."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from discovery.config import Config
from discovery.web.app import create_app
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
    server = uvicorn.Server(uvicorn.Config(create_app(lambda: None, store_config), host="127.0.0.1", port=0, log_level="warning"))
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
    assert page.locator("tbody tr").count() == 2
    assert "127" in page.locator(".numbers").inner_text()  # 100 + 25 textures, a smaller copy, a stranger
    page.locator("summary").last.click()
    page.get_by_text("broken.jpg").wait_for()


def test_the_most_novel_asset_stands_beside_its_nearest_neighbour(page: Page, address: str) -> None:
    page.goto(f"{address}/#novel")
    first = page.locator(".card").first
    first.wait_for()
    assert first.locator("img").count() == 2
    assert HOSTILE in first.inner_text()  # as text
    for picture in first.locator("img").all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


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
    assert "smaller.png" in group.inner_text() and "near: cosine" in group.inner_text()


def test_versions_link_into_mlflow(page: Page, address: str) -> None:
    page.goto(f"{address}/#versions")
    page.wait_for_selector("tbody tr")
    row = page.locator("tbody tr").first
    assert "shown@2" in row.inner_text()
    assert "/runs/" in str(row.get_by_role("link", name="MLflow").get_attribute("href"))


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
