"""The pages and their API as one FastAPI app; every route stands behind the caller check that it is given, and marks behind another besides.

Airflow does not authenticate a plugin's app, and neither mounts nor the documentation routes inherit an app's dependencies, so
there are no mounts and no documentation routes, and static files are a route like any other. The same app serves without
Airflow, with another check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from discovery.addressing import is_content_id
from discovery.config import Config, load_config
from discovery.errors import DiscoveryError, UnknownRecord
from discovery.stages.why import Why
from discovery.types import NoveltyReport
from discovery.web.headers import SecurityHeaders
from discovery.web.read_model.assets import AssetView, asset_view
from discovery.web.read_model.duplicates import DuplicatesView, Kind, duplicates_view
from discovery.web.read_model.library import Library
from discovery.web.read_model.novelty import NoveltyView, Show, novel_view
from discovery.web.read_model.runs import Overview, Rejections, Run, overview, rejections, run
from discovery.web.read_model.versions import VersionsView, VersionView, version_view, versions_view, why_view

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOREVER = "private, max-age=31536000, immutable"  # a thumbnail is named by the hash of its picture

Id = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$")]
QueryId = Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$")]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=200)]
ThemeNumber = Annotated[int | None, Query(ge=0, le=1_000_000)]
MOST_MARKED = 500  # assets in one request
OUR_PAGE = "x-discovery"  # a header that no other site can send without being asked for first
Asked = Annotated[str, Query(min_length=1, max_length=4000)]
Split = Annotated[str | None, Query(max_length=100)]


class MarkRequest(BaseModel):
    """What a person says of assets of one novelty report."""

    model_config = ConfigDict(extra="forbid")
    report: str = Field(pattern=r"^[0-9a-f]{64}$")
    assets: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(min_length=1, max_length=MOST_MARKED)
    mark: Literal["expected", "novel", "junk", "none"]
    comment: str = Field("", max_length=1000)


class MarkAnswer(BaseModel):
    """How many assets have the mark now, and who said so."""

    mark: str
    by: str
    assets: int


def nobody_marks() -> str:
    """The check where nobody was named who may mark."""
    raise HTTPException(403, "Marks cannot be made here. `discovery mark` makes them.")


def create_app(
    require_user: Callable[..., Any], config: Config | Callable[[], Config] = load_config, who_marks: Callable[..., Any] = nobody_marks
) -> FastAPI:
    """The app. require_user: a FastAPI dependency that raises HTTPException for callers who may not look.

    who_marks: one that gives the name of a caller who may mark assets, and raises HTTPException for all others.

    config: settings, or what reads them; it is called on first use, so that a wrong setting is told to the reader of the page and
    does not stop the server that the pages live in.
    """
    shelf: list[Library] = []

    def library() -> Library:
        if not shelf:
            shelf.append(Library(config() if callable(config) else config))
        return shelf[0]

    app = FastAPI(
        title="Discovery", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(require_user)],
        redirect_slashes=False,
    )  # fmt: skip
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DiscoveryError, _platform_error)
    static = {file.name: file for file in STATIC.iterdir() if file.suffix in TYPES}
    page_file = STATIC / "index.html"

    @app.get("/")
    def page(request: Request) -> Response:
        return _file(page_file, "text/html", request)

    @app.get("/static/{name}")
    def static_file(name: str, request: Request) -> Response:
        if name not in static:  # only names that were there at the start, so that no path can be asked for
            raise HTTPException(404, "No such file.")
        return _file(static[name], TYPES[static[name].suffix], request)

    @app.get("/api/overview")
    def api_overview(offset: Offset = 0, limit: Limit = 20) -> Overview:
        return overview(library(), offset, min(limit, 50))

    @app.get("/api/run/{manifest_id}")
    def api_run(manifest_id: Id) -> Run:
        return run(library(), manifest_id)

    @app.get("/api/rejections/{manifest_id}")
    def api_rejections(manifest_id: Id, offset: Offset = 0, limit: Limit = 100) -> Rejections:
        return rejections(library(), manifest_id, offset, limit)

    @app.get("/api/novel")
    def api_novel(report: QueryId = None, show: Show = "all", theme: ThemeNumber = None, offset: Offset = 0, limit: Limit = 48) -> NoveltyView:
        return novel_view(library(), report, show, theme, offset, limit)

    @app.post("/api/mark", dependencies=[Depends(from_our_page)])
    def api_mark(asked: MarkRequest, by: str = Depends(who_marks)) -> MarkAnswer:
        return _mark(library(), asked, by)

    @app.get("/api/duplicates")
    def api_duplicates(report: QueryId = None, kind: Kind = "all", offset: Offset = 0, limit: Limit = 30) -> DuplicatesView:
        return duplicates_view(library(), report, kind, offset, limit)

    @app.get("/api/versions")
    def api_versions(offset: Offset = 0, limit: Limit = 50) -> VersionsView:
        return versions_view(library(), offset, limit)

    @app.get("/api/version/{version_id}")
    def api_version(version_id: Id, split: Split = None, offset: Offset = 0, limit: Limit = 60) -> VersionView:
        return version_view(library(), version_id, split, offset, limit)

    @app.get("/api/version/{version_id}/why")
    def api_why(version_id: Id, asset: Asked) -> Why:
        return why_view(library(), version_id, asset)

    @app.get("/api/asset/{asset_id}")
    def api_asset(asset_id: Id) -> AssetView:
        return asset_view(library(), asset_id)

    @app.get("/thumbnail/{asset_id}")
    def thumbnail(asset_id: str, request: Request) -> Response:
        webp = library().thumbnail(asset_id) if is_content_id(asset_id) else None
        if webp is None:
            raise HTTPException(404, "No such thumbnail.")
        headers = {"Cache-Control": FOREVER, "ETag": f'"{asset_id}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(webp, media_type="image/webp", headers=headers)

    return app


def from_our_page(request: Request) -> None:
    """Refuses what another site made a browser send with its user's cookie."""
    if OUR_PAGE not in request.headers or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, f"Marks are made from the discovery pages, or with the header {OUR_PAGE}.")


def _mark(library: Library, asked: MarkRequest, by: str) -> MarkAnswer:
    """Mark assets of a report, or of its calibration. Raises UnknownRecord for an asset that is not in it."""
    from discovery.stages.marks import mark
    from discovery.workspace import open_workspace

    report = library.get(NoveltyReport, asked.report)
    shown = {i for role in ("table", "calibration") if any(ref.role == role for ref in report.files) for i in library.table(report, ("asset_id",), role)["asset_id"].to_pylist()}
    if unknown := [asset_id for asset_id in asked.assets if asset_id not in shown]:
        raise UnknownRecord(f"Asset {unknown[0][:12]}… is not in this report.")
    with open_workspace(library.config) as ws:
        made = mark(asked.assets, asked.mark, by, ws, report_id=report.id, comment=asked.comment)
    return MarkAnswer(mark=asked.mark, by=by, assets=len(made))


def _file(file: Path, media_type: str, request: Request) -> Response:
    """A small file that the browser keeps and asks about."""
    stat = file.stat()
    headers = {"Cache-Control": "private, no-cache", "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(file.read_bytes(), media_type=f"{media_type}; charset=utf-8", headers=headers)


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one shape of every error."""
    return JSONResponse({"error": {"message": message}}, status, headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return error_response(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(422, f"{first['loc'][-1]}: {first['msg']}.")


async def _platform_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, UnknownRecord):
        return error_response(404, str(error))
    log.warning("%s: %s", request.url.path, error)
    return error_response(503, str(error))
