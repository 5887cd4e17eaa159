"""What the store promises of records on any place: one commit of a key, whole or not at all, and nothing that was changed is read."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from discovery.adapters.files import Files
from discovery.adapters.storage import Store, asset_path, table_to_parquet
from discovery.addressing import sha256_hex
from discovery.errors import CorruptArtifact, InvalidInput
from discovery.schemas import embedding_table
from discovery.types import MeasureShard, QualityReport
from tests.contracts.conftest import Place
from tests.contracts.writer import shard

A, B = "a" * 64, "b" * 64


@pytest.fixture
def store(place: Place) -> Store:
    return Store(place.root, place.s3)


def paths(files: Files, prefix: str = "") -> list[str]:
    return sorted(entry.path for entry in files.walk(prefix))


def test_a_committed_record_comes_back_equal(store):
    record = store.commit(shard(store, A))
    assert store.load_record(MeasureShard, A) == record
    assert store.read_file(record, "table") == b"rows"
    assert store.committed_keys("measure") == [A] and list(store.records(["measure"])) == [record]


def test_before_the_commit_nothing_is_visible(store):
    shard(store, A)
    assert store.load_record(MeasureShard, A) is None and store.committed_keys("measure") == [] and list(store.scan()) == []


def test_a_file_may_be_given_as_a_path(store, tmp_path):
    source = tmp_path / "rows"
    source.write_bytes(b"rows")
    from_path = store.put_file("measure", A, "table", source, ".parquet", 1)
    assert from_path == store.put_file("measure", A, "table", b"rows", ".parquet", 1)
    assert from_path.sha256 == sha256_hex(b"rows") and from_path.size_bytes == 4


def test_of_runs_of_one_key_at_once_one_commits_and_the_others_take_over_its_record(place):
    def run(second: int):
        own = Store(place.root, place.s3)
        record = replace(shard(own, A, str(second).encode()), created_at=f"2026-01-01T00:00:{second:02d}+00:00")
        return record, own.commit(record)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(8)))
    store = Store(place.root, place.s3)
    winner = store.load_record(MeasureShard, A)
    assert {returned for _, returned in results} == {winner}
    assert [record for record, _ in results].count(winner) == 1
    assert store.read_file(winner, "table") == str(int(winner.created_at[17:19])).encode()  # files of the winner's own


def test_some_columns_are_read_without_the_rest_of_the_file(store, monkeypatch):
    ids = [sha256_hex(str(number).encode()) for number in range(500)]
    vectors = np.random.default_rng(1).random((500, 256), np.float32)
    ref = store.put_file("measure", A, "table", table_to_parquet(embedding_table(ids, vectors)), ".parquet", 500)
    record = store.commit(replace(shard(store, A), files=(ref,)))
    fetched: list[int] = []
    plain = store.files.read_range

    def counted(path: str, start: int, end: int) -> bytes:
        data = plain(path, start, end)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(store.files, "read_range", counted)
    monkeypatch.setattr(store.files, "read", lambda path: pytest.fail(f"all of {path} was read"))
    assert store.peek_columns(record, ["asset_id"])["asset_id"].to_pylist() == ids
    assert sum(fetched) < ref.size_bytes / 4 and len(fetched) <= 3  # of ids 500 x 64 bytes, of vectors 500 x 1,024; the end holds 64 KiB
    path = store.file_path(record, "table")
    store.files.remove(path)
    with pytest.raises(CorruptArtifact, match="missing though its record names it"):
        store.peek_columns(record, ["asset_id"])
    store.files.create(path, bytes(ref.size_bytes))
    with pytest.raises(CorruptArtifact, match="no Parquet file any more"):
        store.peek_columns(record, ["asset_id"])


def test_changed_bytes_are_corrupt(store, tmp_path):
    record = store.commit(shard(store, A))
    store.copy_file(record, "table", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"rows"
    path = store.file_path(record, "table")
    store.files.remove(path)
    store.files.create(path, b"rowz")
    with pytest.raises(CorruptArtifact, match="expected SHA-256"):
        store.read_file(record, "table")
    with pytest.raises(CorruptArtifact, match="expected SHA-256"):
        store.copy_file(record, "table", tmp_path / "copy")


def test_a_file_that_vanished_is_corrupt_and_an_unknown_record_is_none(store, tmp_path):
    record = store.commit(shard(store, A))
    store.files.remove(store.file_path(record, "table"))
    with pytest.raises(CorruptArtifact, match="missing though its record names it"):
        store.read_file(record, "table")
    with pytest.raises(CorruptArtifact, match="missing though its record names it"):
        store.copy_file(record, "table", tmp_path / "copy")
    assert store.load_record(MeasureShard, B) is None


def test_a_record_that_is_no_record_or_another_one_is_corrupt(store):
    store.files.create(f"artifacts/measure/{A}/record.json", b'{"stage": "measure"')
    body = json.loads(store.commit(shard(store, B)).to_json())
    store.files.create(f"artifacts/check/{B}/record.json", json.dumps(body).encode())
    with pytest.raises(CorruptArtifact, match="Not a record"):
        store.load_record(MeasureShard, A)
    with pytest.raises(CorruptArtifact, match="holds a record of measure"):
        store.load_record(QualityReport, B)
    assert [(entry.path.split("/")[1], record is None) for entry, record in sorted(store.scan(), key=lambda pair: pair[0])] == [
        ("check", True), ("measure", True), ("measure", False),
    ]  # fmt: skip


def test_an_asset_is_kept_once_under_its_hash(store):
    asset_id = sha256_hex(b"picture")
    assert store.put_asset(asset_id, b"picture") is True and store.put_asset(asset_id, b"picture") is False
    assert store.get_asset(asset_id) == b"picture" and store.has_asset(asset_id) and not store.has_asset(B)
    with pytest.raises(InvalidInput, match="does not have the bytes"):
        store.put_asset(asset_id, b"another")
    store.files.remove(asset_path(asset_id))
    store.files.create(asset_path(asset_id), b"pictur")
    with pytest.raises(CorruptArtifact, match="expected SHA-256"):
        store.get_asset(asset_id)
    with pytest.raises(FileNotFoundError):
        store.get_asset(B)
