"""The reports of a batch and of a version as files in a real browser: everything is inside, nothing is asked for, names stay text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from discovery.config import Config
from discovery.types import CollectionReport, QualityReport
from discovery.workspace import open_workspace
from tests.pages.test_pages_in_chromium import browser  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.live]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:  # noqa: F811
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url))
    yield opened
    opened.close()
    assert complaints == []


@pytest.mark.parametrize("kind", [QualityReport, CollectionReport])
def test_a_report_is_one_file_that_a_browser_shows(page: Page, store_config: Config, kind: type[QualityReport | CollectionReport]) -> None:
    with open_workspace(store_config) as ws:
        report = ws.catalog.records(kind.stage)[0]
        file = Path(store_config.root) / ws.store.file_path(report, "report")
    page.goto(file.as_uri())
    assert page.locator(".verdict").inner_text() == "Passed"
    assert page.locator("td.met").count() >= 5
    assert page.title() != "owned"
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{kind.stage}.png"), full_page=True)
