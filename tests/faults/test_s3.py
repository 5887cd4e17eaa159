"""The whole chain with its root in a bucket, over a network that misbehaves and a server that dies: the same digest, nothing lost."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import pytest
import s3fs

from benchmarks.kill_chain import ASSETS, LISTED, SHARD, Failed, differences, finish, start
from discovery.config import Config
from discovery.workspace import open_workspace
from tests.contracts.s3_server import CREDENTIALS, s3_server
from tests.contracts.seaweedfs import SeaweedFS
from tests.ingest.faulty_s3 import FaultyS3

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
FAULTS = ("throttle", "error", "cut", "reset", "stall")
SOURCE, ROOT = "s3://camera/photos", "s3://team/root"


@dataclass
class Outage:
    """Of a server that answers nothing more once something is written under a path with `place` in it."""

    place: str
    begun: bool = False

    def __call__(self, method: str, path: str, nth: int) -> str:
        self.begun = self.begun or (method == "PUT" and self.place in path)
        return "reset" if self.begun else ""


@dataclass(frozen=True)
class Bucket:
    """A server, the network before it, and where what cannot lie in a bucket is kept."""

    upstream: str
    network: FaultyS3
    environ: dict[str, str]

    @property
    def config(self) -> Config:
        """Settings that go past the network."""
        return Config(root=ROOT).replace(dask={"scheduler": "inline"}, s3={"endpoint_url": self.upstream})


@pytest.fixture
def bucket(chain_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "AWS_EC2_METADATA_DISABLED": "true", **CREDENTIALS}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with s3_server() as upstream, FaultyS3(upstream) as network:
        s3fs.S3FileSystem.clear_instance_cache()
        filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": upstream})
        filesystem.mkdir("camera")
        filesystem.mkdir("team")
        filesystem.pipe({f"{SOURCE}/{path.name}": path.read_bytes() for path in chain_pictures.iterdir()})
        yield Bucket(upstream, network, environ | {"DISCOVERY_S3__ENDPOINT_URL": network.url, "DISCOVERY_S3__TIMEOUT_S": "2"})


def test_a_network_that_fails_one_request_in_25_changes_nothing(bucket: Bucket, undisturbed: dict[str, object]) -> None:
    met: Counter[str] = Counter()

    def weather(method: str, path: str, nth: int) -> str:
        draw = crc32(f"{method} {path} {nth}".encode())
        kind = FAULTS[draw // 25 % len(FAULTS)] if draw % 25 == 0 else ""
        met[kind] += 1
        return kind

    bucket.network.fault = weather
    assert differences(bucket.config, finish(SOURCE, ROOT, bucket.environ), undisturbed) == []
    assert set(met) == {"", *FAULTS} and sum(met.values()) - met[""] > 15, met


def test_a_server_that_dies_and_returns_costs_nothing(bucket: Bucket, undisturbed: dict[str, object]) -> None:
    """It dies when the first file of a kind is written; each run goes on from where the one before broke off."""
    for place in ("artifacts/measure/", "artifacts/embed_shard/", "artifacts/index/", "journal/"):
        bucket.network.fault = outage = Outage(place)
        with pytest.raises(Failed, match=r"\ndiscovery: .*does not answer|discovery: .*s3://team/root") as ended:
            finish(SOURCE, ROOT, bucket.environ)
        assert outage.begun and "Traceback" not in str(ended.value)
    bucket.network.fault = lambda method, path, nth: ""
    assert differences(bucket.config, finish(SOURCE, ROOT, bucket.environ), undisturbed) == []


def test_a_run_killed_over_a_bucket_is_finished_by_the_next(bucket: Bucket, undisturbed: dict[str, object]) -> None:
    """Each goes on from the one killed before it, until it is killed itself, further on; the last is not."""
    for mark in (f"ingest: {LISTED} listed", "embed_shard: 16 of", "index: measuring"):
        process = start(SOURCE, ROOT, bucket.environ)
        assert process.stderr is not None
        assert any(mark in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    assert differences(bucket.config, finish(SOURCE, ROOT, bucket.environ), undisturbed) == []


def test_a_server_that_is_killed_and_started_on_its_folder_has_lost_nothing(
    chain_pictures: Path, undisturbed: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "DISCOVERY_S3__TIMEOUT_S": "2", **CREDENTIALS}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "weed").mkdir()
    with SeaweedFS(tmp_path / "weed") as server:
        environ["DISCOVERY_S3__ENDPOINT_URL"] = server.url
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(client_kwargs={"endpoint_url": server.url}).mkdir("team")
        process = start(chain_pictures, ROOT, environ)
        assert process.stderr is not None
        assert any("embed_shard: 16 of" in line for line in process.stderr)
        server.kill()
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1 and err.splitlines()[-1].startswith("discovery: "), err
        server.start()
        config = Config(root=ROOT).replace(s3={"endpoint_url": server.url})
        with open_workspace(config, map_shards=map) as ws:
            shards = ws.store.committed_keys("embed_shard")
            assert 2 <= len(shards) < ASSETS // SHARD  # of what was told of as written, all is there
        assert differences(config, finish(chain_pictures, ROOT, environ), undisturbed) == []
        with open_workspace(config, map_shards=map) as ws:
            assert set(ws.store.committed_keys("embed_shard")) > set(shards)  # the next run went on from them
