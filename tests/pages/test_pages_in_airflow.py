"""The pages inside a real Airflow: its own caller check on every route, its frame, its theme, its run tab."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from playwright.sync_api import BrowserContext, Page, sync_playwright

from discovery.config import Config
from discovery.types import Manifest
from discovery.web.app import create_app
from discovery.workspace import open_workspace
from tests.pages.test_pages_in_chromium import FLAGS

pytestmark = [pytest.mark.live]
REPOSITORY = Path(__file__).parents[2]
PASSWORDS = {"admin": "an admin's password", "viewer": "a viewer's password"}
STARTUP_S = 180


@dataclass(frozen=True)
class Airflow:
    """An API server over a database that holds one finished run of visual_discovery."""

    url: str
    root: str
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, tiny_pictures: Path) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow home")
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "DISCOVERY_"))},
        "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}", "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore",
        "DISCOVERY_ROOT": str(home / "store"), "DISCOVERY_DASK__SCHEDULER": "inline",
    }  # fmt: skip
    command = [sys.executable, "-m", "airflow"]
    conf = json.dumps({"source": str(tiny_pictures), "collection": "shown", "budget": 6})
    with (home / "server.log").open("wb") as log:
        for arguments in (["db", "migrate"], ["dags", "reserialize"]):
            subprocess.run([*command, *arguments], env=environment, stdout=log, stderr=log, check=True, timeout=STARTUP_S)
        subprocess.run(
            [*command, "dags", "test", "visual_discovery", "2026-01-02T03:04:05+00:00", "-c", conf],
            env=environment, stdout=log, stderr=log, check=True, timeout=300,
        )  # fmt: skip
        server = subprocess.Popen(
            [*command, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTUP_S
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (home / "server.log").read_text()[-3000:]
            try:
                if httpx.get(f"{url}/api/v2/version", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.3)  # the server offers nothing to wait on but its port
        tokens = {
            user: httpx.post(f"{url}/auth/token", json={"username": user, "password": word}, timeout=30).json()["access_token"]
            for user, word in PASSWORDS.items()
        }
        yield Airflow(url, str(home / "store"), tokens)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def test_airflow_itself_refuses_strangers_on_every_route_and_lets_viewers_in(airflow: Airflow) -> None:
    config = Config(root=airflow.root)
    with open_workspace(config) as ws:
        manifest = ws.catalog.records(Manifest.stage)[0]
        names = {
            "manifest_id": manifest.id, "asset_id": ws.store.read_table(manifest)["asset_id"][0].as_py(),
            "version_id": ws.catalog.versions()[0].version_id, "name": "app.js",
        }  # fmt: skip
    app = create_app(lambda: None, config)
    assert all(isinstance(route, APIRoute) for route in app.routes)
    asked = {"/api/version/{version_id}/why": f"?asset={names['asset_id']}"}  # what a route cannot answer without
    paths = [route.path.format(**names) + asked.get(route.path, "") for route in app.routes if isinstance(route, APIRoute) and "GET" in route.methods]
    assert len(paths) >= 10
    viewer = {"Authorization": f"Bearer {airflow.tokens['viewer']}"}
    for path in paths:
        refused = httpx.get(f"{airflow.url}/discovery{path}")
        assert refused.status_code == 401, path
        assert "frame-ancestors 'self'" in refused.headers["content-security-policy"], path
        assert httpx.get(f"{airflow.url}/discovery{path}", headers={"Authorization": "Bearer x.y.z"}).status_code in (401, 403), path
        assert httpx.get(f"{airflow.url}/discovery{path}", headers=viewer).status_code == 200, path
    for path in ("/docs", "/openapi.json", "/redoc", "/static/%2e%2e/app.py"):
        assert httpx.get(f"{airflow.url}/discovery{path}").status_code in (401, 404), path


def test_airflow_decides_who_may_mark(airflow: Airflow) -> None:
    with open_workspace(Config(root=airflow.root)) as ws:
        report = ws.catalog.records("score")[0]
        asset = ws.store.read_table(report)["asset_id"][0].as_py()
    wish = {"report": report.id, "assets": [asset], "mark": "novel"}

    def ask(user: str, **headers: str) -> httpx.Response:
        return httpx.post(f"{airflow.url}/discovery/api/mark", json=wish, headers={"Authorization": f"Bearer {airflow.tokens[user]}", **headers}, timeout=60)

    page = {"X-Discovery": "page"}
    assert httpx.post(f"{airflow.url}/discovery/api/mark", json=wish, headers=page).status_code == 401
    assert ask("viewer", **page).status_code == 403 and ask("admin").status_code == 403  # may not; did not come from our page
    made = ask("admin", **page)
    assert made.status_code == 200 and made.json() == {"mark": "novel", "by": "admin", "assets": 1}


def test_the_plugin_is_in_the_menu_and_on_each_run(airflow: Airflow) -> None:
    admin = {"Authorization": f"Bearer {airflow.tokens['admin']}"}
    plugins = httpx.get(f"{airflow.url}/api/v2/plugins", headers=admin, timeout=30).json()["plugins"]
    views = next(plugin for plugin in plugins if plugin["name"] == "discovery")["external_views"]
    assert [(view["name"], view["destination"]) for view in views] == [("Discovery", "nav"), ("Dataset", "dag_run")]
    assert httpx.get(f"{airflow.url}/api/v2/plugins/importErrors", headers=admin, timeout=30).json()["import_errors"] == []


@pytest.fixture(scope="module")
def context(airflow: Airflow) -> Iterator[BrowserContext]:
    chromium = shutil.which("chromium")
    if chromium is None:
        assert not os.environ.get("CI"), "CI must have Chromium; tests/install_browser.sh installs it"
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = browser.new_context(viewport={"width": 1400, "height": 900})
        opened.add_cookies([{"name": "_token", "value": airflow.tokens["viewer"], "url": airflow.url}])
        yield opened
        browser.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


def shoot(page: Page, name: str) -> None:
    """Keep a picture where PAGES_SHOTS says, for people who change the design."""
    if folder := os.environ.get("PAGES_SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_the_page_follows_airflow_s_theme(airflow: Airflow, page: Page) -> None:
    page.goto(f"{airflow.url}/plugin/discovery")
    inside = page.frame_locator("iframe")
    inside.locator(".numbers").wait_for()
    for theme in ("dark", "light"):
        page.evaluate(f"document.documentElement.className = '{theme}'")
        inside.locator(f"html[data-theme={theme}]").wait_for(state="attached")
        shoot(page, f"in_airflow_{theme}")


def test_a_link_to_mlflow_leaves_the_frame_through_a_new_tab(airflow: Airflow, context: BrowserContext, page: Page) -> None:
    page.goto(f"{airflow.url}/plugin/discovery")
    inside = page.frame_locator("iframe")
    inside.get_by_role("link", name="Versions", exact=True).first.click()
    link = inside.locator("tbody tr").first.get_by_role("link", name="MLflow")
    address = link.get_attribute("href")
    with context.expect_page() as opened:
        link.click()
    assert address is not None
    assert opened.value.url.startswith(("chrome-error://", "about:blank", address.split("#")[0]))  # no MLflow answers here
    opened.value.close()
    assert page.url.startswith(f"{airflow.url}/plugin/discovery")


def test_the_tab_of_a_run_shows_its_dataset(airflow: Airflow, page: Page) -> None:
    admin = {"Authorization": f"Bearer {airflow.tokens['admin']}"}
    runs = httpx.get(f"{airflow.url}/api/v2/dags/visual_discovery/dagRuns", headers=admin, timeout=30).json()["dag_runs"]
    page.goto(f"{airflow.url}/dags/visual_discovery/runs/{runs[0]['dag_run_id']}/plugin/dataset")
    inside = page.frame_locator("iframe")
    inside.get_by_role("link", name="shown@1").wait_for()
    assert inside.locator("main .strip figure").count() == 6
    assert inside.get_by_role("link", name="This run").is_visible()
    assert "Listed" in inside.locator(".numbers").inner_text()
    shoot(page, "in_airflow_run")
