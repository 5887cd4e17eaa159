"""Doctor: try everything that is configured and say, for each, whether it works and what to do when it does not."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from discovery.config import Config
from discovery.errors import DiscoveryError

PACKAGES = ("torch", "timm", "hnswlib", "dask", "great_expectations", "mlflow", "apache-airflow", "s3fs", "pyarrow", "duckdb")
LOW_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried. `detail` says what was found, or what to do."""

    name: str
    ok: bool
    detail: str


def diagnose(config: Config) -> list[Check]:
    """Every check, in the order of a run; none raises."""
    tries: dict[str, Callable[[Config], str]] = {
        "python": _python, "packages": _packages, "root": _root, "catalog": _catalog, "encoder": _encoder, "dask": _dask,
        "mlflow": _mlflow, "publications": _publications,
    }  # fmt: skip
    checks = []
    for name, attempt in tries.items():
        try:
            checks.append(Check(name, True, attempt(config)))
        except DiscoveryError as error:
            checks.append(Check(name, False, str(error)))
        except Exception as error:  # a doctor reports whatever it meets
            checks.append(Check(name, False, f"{type(error).__name__}: {error}"))
    return checks


def _python(config: Config) -> str:
    return f"{sys.version.split()[0]} at {sys.executable}"


def _packages(config: Config) -> str:
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError as error:
            raise DiscoveryError(f"{name} is not installed. Run `make setup`, or pip install -r requirements.lock.") from error
    return ", ".join(versions)


def _root(config: Config) -> str:
    from discovery.adapters.storage import Store

    store = Store(config.root, config.s3)
    probe = f"probe/{uuid.uuid4().hex}"
    store.files.create(probe, b"probe")
    read = store.files.read(probe)
    store.files.remove(probe)
    if read != b"probe":
        raise DiscoveryError(f"{config.root} gave back other bytes than were written.")
    if config.is_remote:
        return f"{config.root} can be read and written"
    free = shutil.disk_usage(config.local_folder).free
    if free < LOW_DISK_BYTES:
        raise DiscoveryError(f"{config.local_folder} has {free / 2**30:.1f} GiB free. Free some space before a large run.")
    return f"{config.local_folder} can be read and written, {free / 2**30:.0f} GiB free"


def _catalog(config: Config) -> str:
    from sqlalchemy import make_url

    from discovery.adapters.catalog import Catalog

    catalog = Catalog(config.catalog_url)
    try:
        heads = catalog.heads()
    finally:
        catalog.close()
    return f"{make_url(config.catalog_url).render_as_string(hide_password=True)}, {len(heads)} index(es)"


def _publications(config: Config) -> str:
    from discovery.publish import pending_versions
    from discovery.workspace import open_workspace

    with open_workspace(config, map_shards=map) as ws:
        versions, waiting = ws.catalog.versions(), pending_versions(ws)
    if waiting:
        names = ", ".join(f"{row.name}@{row.number}" for row in waiting[:5]) + (" …" if len(waiting) > 5 else "")
        raise DiscoveryError(f"{len(waiting)} of {len(versions)} versions wait to be published: {names}. Run `discovery publish`.")
    return f"MLflow shows all {len(versions)} versions"


def _encoder(config: Config) -> str:
    from discovery.adapters.encoders import load_encoder

    spec = load_encoder(config.encoder, config.s3).spec
    return f"{spec.encoder_id}, {spec.dim} dimensions, {spec.input_px} px"


def _dask(config: Config) -> str:
    from discovery.adapters.dask_map import INLINE, LazyDaskMap

    if config.dask.scheduler in ("", INLINE):
        return "local worker processes, started when there is work" if not config.dask.scheduler else "inline, in this process"
    spread = LazyDaskMap(config.dask, lambda message: None)
    try:
        (answer,) = list(spread(_echo, ["pong"]))
    finally:
        spread.close()
    return f"{config.dask.scheduler} answers: {answer}"


def _echo(value: str) -> str:
    return value


def _mlflow(config: Config) -> str:
    import httpx

    uri = config.tracking_uri
    if not uri.startswith(("http://", "https://")):
        return f"embedded database {uri}; open it with: mlflow ui --backend-store-uri '{uri}'"
    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=5)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise DiscoveryError(f"MLflow at {uri} does not answer ({error}). Start it, or leave mlflow.tracking_uri empty.") from error
    return f"{uri} answers"
