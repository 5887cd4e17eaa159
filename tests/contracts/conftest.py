"""Places under contract: a folder, and a bucket of a real S3 server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from discovery.adapters.files import Files, make_bucket, open_files
from discovery.config import Config, S3Config
from discovery.workspace import Workspace, open_workspace
from tests.contracts.postgres import postgres
from tests.contracts.s3_server import CREDENTIALS, s3_server
from tests.contracts.seaweedfs import SeaweedFS
from tests.contracts.writer import WITHOUT_LINKS, no_links

WRITER = Path(__file__).with_name("writer.py")


@dataclass(frozen=True)
class Place:
    """A root that is empty at the start of a test, and how to reach it."""

    root: str
    s3: S3Config

    def open(self) -> Files:
        return open_files(self.root, self.s3)

    def workspace(self, **settings: Any) -> AbstractContextManager[Workspace]:
        return open_workspace(Config(root=self.root, s3=self.s3).replace(**settings), map_shards=map)


def start(place: Place, what: str) -> subprocess.Popen[str]:
    """The writer in a process of its own, once it is ready."""
    command = [sys.executable, "-W", "ignore", str(WRITER), place.root, place.s3.endpoint_url, what]
    project = str(Path(__file__).parents[2])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": project})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(scope="session")
def seaweedfs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SeaweedFS(tmp_path_factory.mktemp("weed")) as server:
        yield server.url


PLACES = ["local", pytest.param("moto", marks=pytest.mark.live), pytest.param("seaweedfs", marks=pytest.mark.live)]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same test on a folder and on two S3 servers."""
    return new_place(request, tmp_path, monkeypatch)


def new_place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place that a test's parameter names; parts are as small as S3 allows, so that large objects stay small."""
    monkeypatch.setattr("discovery.adapters.files.PART_BYTES", 5 * 2**20)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the catalog of a remote root is
    if request.param in ("local", WITHOUT_LINKS):
        if request.param == WITHOUT_LINKS:
            monkeypatch.setattr(os, "link", no_links)
            monkeypatch.setenv(WITHOUT_LINKS, "1")  # for the processes of writer.py
        return Place(str(tmp_path / "a root"), S3Config())
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    url = request.getfixturevalue("s3_url" if request.param == "moto" else "seaweedfs_url")
    bucket = f"bucket-{uuid.uuid4().hex}" if request.param == "moto" else f"contract/{uuid.uuid4().hex}"  # SeaweedFS: 7 volumes a bucket
    made = Place(f"s3://{bucket}/a prefix", S3Config(endpoint_url=url))
    make_bucket(made.root, made.s3)
    return made


@pytest.fixture
def files(place: Place) -> Files:
    return place.open()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL on TCP of this machine."""
    with postgres() as url:
        yield url


@pytest.fixture
def empty_postgres(postgres_url: str) -> str:
    """The same without a table."""
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live)])
def new_catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    return f"sqlite:///{tmp_path / 'new.db'}" if request.param == "sqlite" else str(request.getfixturevalue("empty_postgres"))
