"""Nobody sees a page, a file, a picture or a fact without being let in; walked over every route the app has."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from discovery.config import Config
from discovery.errors import ConfigError
from discovery.stages.history import current_snapshot
from discovery.stages.score import top_novel
from discovery.types import Manifest, NoveltyReport
from discovery.web.airflow_auth import refuse_everyone
from discovery.web.app import create_app
from discovery.web.token_auth import require_token, token_holder
from discovery.workspace import open_workspace

TOKEN = "a token that nobody guesses"


@pytest.fixture(scope="module")
def app(store_config: Config) -> FastAPI:
    return create_app(require_token(TOKEN), store_config)


@pytest.fixture(scope="module")
def names(store_config: Config) -> dict[str, str]:
    """A real value for each path parameter."""
    with open_workspace(store_config) as ws:
        manifest = ws.catalog.records(Manifest.stage)[0]
        asset = ws.store.read_table(manifest)["asset_id"].drop_null()[0].as_py()
        version = ws.catalog.versions()[0].version_id
        assert current_snapshot(ws).elements > 100
    return {"manifest_id": manifest.id, "asset_id": asset, "version_id": version, "name": "app.js"}


@pytest.fixture(scope="module")
def anonymous(app: FastAPI) -> TestClient:
    return TestClient(app)


@pytest.fixture(scope="module")
def reader(app: FastAPI) -> TestClient:
    return TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"})


def paths(app: FastAPI, names: dict[str, str]) -> list[str]:
    assert all(isinstance(route, APIRoute) for route in app.routes)  # a mount would skip the check
    asked = {"/api/version/{version_id}/why": f"?asset={names['asset_id']}"}  # what a route cannot answer without
    return [route.path.format(**names) + asked.get(route.path, "") for route in app.routes if isinstance(route, APIRoute) and "GET" in route.methods]


def test_every_route_refuses_anonymous_callers_and_answers_readers(
    app: FastAPI, names: dict[str, str], anonymous: TestClient, reader: TestClient
) -> None:
    walked = paths(app, names)
    assert len(walked) >= 10
    for path in walked:
        refused = anonymous.get(path)
        assert refused.status_code == 401 and set(refused.json()) == {"error"}, path
        assert anonymous.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401, path
        assert reader.get(path).status_code == 200, path


def test_every_route_only_reads_but_the_one_that_marks(app: FastAPI) -> None:
    writing = {route.path for route in app.routes if isinstance(route, APIRoute) and route.methods != {"GET"}}
    assert writing == {"/api/mark"}


@pytest.fixture
def wish(store_config: Config) -> dict[str, object]:
    """A mark of the most novel asset of the newest report."""
    with open_workspace(store_config) as ws:
        report = ws.catalog.records(NoveltyReport.stage)[0]
        assert isinstance(report, NoveltyReport)
        return {"report": report.id, "assets": [top_novel(report, ws, 1)[0]["asset_id"]], "mark": "novel"}


PAGE = {"X-Discovery": "page"}


def test_marks_are_made_by_those_who_may_and_from_our_page_alone(store_config: Config, app: FastAPI, anonymous: TestClient, reader: TestClient, wish: dict[str, object]) -> None:
    basic = {"Authorization": f"Basic {base64.b64encode(f'ana:{TOKEN}'.encode()).decode()}"}
    marking = TestClient(create_app(require_token(TOKEN), store_config, token_holder), headers=basic)
    assert anonymous.post("/api/mark", json=wish, headers=PAGE).status_code == 401
    refused = reader.post("/api/mark", json=wish, headers=PAGE)
    assert refused.status_code == 403 and "discovery mark" in refused.json()["error"]["message"]  # nobody was named who may
    for foreign in ({}, {**PAGE, "Sec-Fetch-Site": "cross-site"}, {**PAGE, "Sec-Fetch-Site": "same-site"}):
        assert marking.post("/api/mark", json=wish, headers=foreign).status_code == 403
    made = marking.post("/api/mark", json=wish, headers={**PAGE, "Sec-Fetch-Site": "same-origin"})
    assert made.status_code == 200 and made.json() == {"mark": "novel", "by": "ana", "assets": 1}
    (asset,) = wish["assets"]  # type: ignore[misc]
    shown = marking.get("/api/novel").json()["candidates"][0]
    assert (shown["asset_id"], shown["mark"]) == (asset, "novel")
    (said,) = marking.get(f"/api/asset/{asset}").json()["marks"]
    assert (said["mark"], said["by"], said["comment"]) == ("novel", "ana", "") and said["at"]
    assert marking.post("/api/mark", json={**wish, "mark": "none"}, headers=PAGE).status_code == 200
    assert marking.get("/api/novel").json()["candidates"][0]["mark"] == ""


@pytest.mark.parametrize(
    ("change", "status"),
    [({"mark": "odd"}, 422), ({"assets": []}, 422), ({"assets": ["../x"]}, 422), ({"assets": ["0" * 64]}, 404), ({"report": "0" * 64}, 404), ({"more": 1}, 422), ({"comment": "x" * 1001}, 422)],
)
def test_what_is_no_mark_is_refused(store_config: Config, wish: dict[str, object], change: dict[str, object], status: int) -> None:
    marking = TestClient(create_app(lambda: None, store_config, lambda: "ana"))
    answer = marking.post("/api/mark", json={**wish, **change}, headers=PAGE)
    assert answer.status_code == status and set(answer.json()) == {"error"}


def test_when_airflow_cannot_be_asked_nobody_is_let_in(store_config: Config, names: dict[str, str]) -> None:
    closed = create_app(refuse_everyone, store_config)
    assert {TestClient(closed).get(path).status_code for path in paths(closed, names)} == {403}


def test_nothing_is_served_beside_the_routes(reader: TestClient) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py"):
        assert reader.get(path).status_code == 404, path


@pytest.mark.parametrize("name", ["../../catalog.db", "0" * 63, "0" * 65, "F" * 64, "0" * 64])
def test_an_id_that_is_none_is_not_found(reader: TestClient, name: str) -> None:
    assert reader.get(f"/thumbnail/{name}").status_code == 404
    assert reader.get(f"/api/asset/{name}").status_code in (404, 422)


def test_every_answer_forbids_foreign_scripts_frames_and_guessing(anonymous: TestClient, reader: TestClient, names: dict[str, str]) -> None:
    for answer in (anonymous.get("/"), reader.get("/"), reader.get("/api/overview"), reader.get("/nowhere")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert reader.get("/api/overview").headers["cache-control"] == "no-store"
    assert "immutable" in reader.get(f"/thumbnail/{names['asset_id']}").headers["cache-control"]


def test_limits_are_bounded(reader: TestClient) -> None:
    for path in ("/api/novel?limit=100000", "/api/duplicates?offset=-1", "/api/novel?report=x"):
        answer = reader.get(path)
        assert answer.status_code == 422 and "message" in answer.json()["error"]


def test_a_root_that_holds_nothing_is_an_empty_page(tmp_path: object) -> None:
    empty = TestClient(create_app(lambda: None, Config(root=str(tmp_path))))
    assert empty.get("/api/overview").json()["runs"] == []
    assert empty.get("/api/versions").json()["versions"] == []


def test_a_token_that_is_guessed_easily_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        require_token("short")


def test_the_api_server_computes_nothing(store_config: Config) -> None:
    """torch or OpenMP in a process that Airflow forks hangs its tasks; so the pages import none of it."""
    code = """
import sys
from discovery.config import Config
from discovery.web.app import create_app
from fastapi.testclient import TestClient
client = TestClient(create_app(lambda: None, Config(root=sys.argv[1])))
for path in ("/", "/api/overview", "/api/novel", "/api/duplicates", "/api/versions"):
    assert client.get(path).status_code == 200, path
print(sorted({"torch", "timm", "hnswlib", "dask", "distributed", "mlflow", "great_expectations", "sklearn", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, store_config.root], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
