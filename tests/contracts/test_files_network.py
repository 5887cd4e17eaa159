"""The contract of files on S3 over a network where each request may fail once: every operation still does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.adapters.files import PART_BYTES, Files, make_bucket, open_files
from discovery.adapters.journal import Journal, Topic
from discovery.config import S3Config
from discovery.errors import StorageError
from tests.contracts.s3_server import CREDENTIALS
from tests.ingest.faulty_s3 import FaultyS3

pytestmark = pytest.mark.live
ROOT = "s3://network/team"
KINDS = ["throttle", "error", "cut", "reset", "stall", "lost"]


@pytest.fixture
def network(s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[FaultyS3]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    make_bucket(f"{ROOT}/{request.node.name}", S3Config(endpoint_url=s3_url))
    with FaultyS3(s3_url) as proxy:
        yield proxy


@pytest.fixture
def files(network: FaultyS3, request: pytest.FixtureRequest) -> Files:
    return open_files(f"{ROOT}/{request.node.name}", S3Config(endpoint_url=network.url, timeout_s=1.0))


def each_first(kind: str, network: FaultyS3) -> None:
    """From now on, the first request of each method and path fails."""
    network.asked.clear()
    network.fault = lambda method, path, nth: kind if nth == 1 else ""


@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_stands_a_fault_of_each_of_its_requests(kind: str, network: FaultyS3, files: Files, tmp_path: Path) -> None:
    each_first(kind, network)
    made = files.create("a/small", b"small")
    assert made or kind in ("cut", "stall", "lost")  # done before the answer was lost: the second attempt finds it there
    assert files.read("a/small") == b"small"
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * (2 * PART_BYTES // 256 + 1))
    files.create_from("a/large", source)
    assert files.read("a/large") == source.read_bytes()
    each_first(kind, network)
    found = files.stat("a/small")
    assert found is not None and found.size_bytes == 5 and files.stat("a/other") is None
    each_first(kind, network)
    assert [entry.path for entry in files.walk("a")] == ["a/large", "a/small"]
    assert files.renew("a/small")
    each_first(kind, network)
    files.remove("a/small")
    assert files.stat("a/small") is None
    files.drop_unfinished(2e9)
    assert [entry.path for entry in files.walk("a")] == ["a/large"]
    assert network.faults >= 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_whose_answer_was_lost_is_still_ours(kind: str, network: FaultyS3, files: Files) -> None:
    each_first(kind, network)
    journal = Journal(files)
    assert journal.claim(Topic.NAMES, "reference", 1, {"record": "mine"}) == {"record": "mine"}
    assert journal.claim(Topic.NAMES, "reference", 1, {"record": "another"}) == {"record": "mine"}


def test_a_server_that_stays_away_is_told(network: FaultyS3, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.adapters.files.ATTEMPTS", 2)
    network.fault = lambda method, path, nth: "reset"
    with pytest.raises(StorageError, match="does not answer"):
        files.read("a/small")
    assert 8 <= network.faults <= 16  # 2 attempts of 4 requests, each of which aiohttp may send twice
