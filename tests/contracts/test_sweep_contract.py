"""gc removes what no record names, and nothing that a live job may be about to commit; on a folder and on S3, beside real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from discovery.adapters import leases as lease_module
from discovery.adapters import storage as storage_module
from discovery.adapters.leases import Lease, leases
from discovery.adapters.storage import Store, asset_path, table_to_parquet, thumbnail_path
from discovery.addressing import sha256_hex
from discovery.errors import CorruptArtifact, StorageError
from discovery.stages import sweep as stage
from discovery.stages.sweep import sweep
from discovery.types import IngestPart, MeasureShard
from discovery.workspace import Workspace
from tests.contracts.conftest import Place, kill, start
from tests.contracts.writer import shard

A, B, C = "a" * 64, "b" * 64, "c" * 64
PICTURE = sha256_hex(b"picture")
SECOND = 1.1  # S3 tells the time of a change in whole seconds


@pytest.fixture
def ws(place: Place) -> Iterator[Workspace]:
    with place.workspace() as opened:
        yield opened


def tick(ws: Workspace) -> None:
    """Until what is written next is younger by the clock of the storage."""
    time.sleep(SECOND if ws.config.is_remote else 0.02)


def below(ws: Workspace, prefix: str) -> list[str]:
    return sorted(entry.path for entry in ws.store.files.walk(prefix))


def leave(ws: Workspace, path: str) -> None:
    """What a run that was killed long ago left."""
    ws.store.files.create(path, b"left")
    tick(ws)


def test_only_what_no_record_names_is_removed(ws):
    record = ws.commit(shard(ws.store, A))
    for path in (f"artifacts/measure/{A}/table-0.parquet", f"artifacts/measure/{B}/table-0.parquet", f"artifacts/old_stage/{B}/x"):
        ws.store.files.create(path, b"left")
    tick(ws)
    assert sweep(ws, age_s=0, dry_run=True) == (found := sweep(ws, age_s=0)) and (found.removed, found.bytes) == (3, 12)
    assert below(ws, "artifacts") == [f"artifacts/measure/{A}/record.json", ws.store.file_path(record, "table")]
    assert ws.store.read_file(record, "table") == b"rows" and sweep(ws, age_s=0).removed == 0


def test_what_is_young_stays(ws):
    leave(ws, f"artifacts/measure/{B}/table-0.parquet")
    assert sweep(ws).removed == 0 and sweep(ws, age_s=0).removed == 1


def test_a_folder_whose_record_cannot_be_read_is_left_as_it_is(ws):
    ws.store.files.create(f"artifacts/measure/{A}/record.json", b"{")
    leave(ws, f"artifacts/measure/{A}/table-0.parquet")
    assert sweep(ws, age_s=0).removed == 0


def test_what_a_live_job_wrote_stays_and_what_was_left_before_it_goes(place, ws):
    leave(ws, f"artifacts/measure/{C}/table-0.parquet")
    job = start(place, "job")
    tick(ws)
    found = sweep(ws, age_s=0, assets=True)
    assert found.removed == 1 and len(found.running) == 1 and str(job.pid) in found.running[0]
    job.stdin.write("commit\n")
    job.stdin.flush()
    assert job.stdout.readline() == "committed\n"
    job.communicate(timeout=60)
    record = ws.store.load_record(MeasureShard, B)
    assert record is not None and ws.store.read_file(record, "table") == b"rows" and ws.store.get_asset(PICTURE) == b"picture"
    assert leases(ws.store.files) == []  # a run that ends takes its lease away


def test_what_a_killed_job_wrote_goes_when_its_lease_is_dead(place, ws, monkeypatch):
    job = start(place, "job")
    kill(job)
    time.sleep(2 * SECOND)
    assert sweep(ws, age_s=0, assets=True).removed == 0  # killed, or only silent: ten minutes decide
    monkeypatch.setattr(stage, "DEAD_AFTER_S", 1.0)
    found = sweep(ws, age_s=0, assets=True)
    assert (found.removed, found.running) == (2, ())  # its file and its asset
    assert below(ws, "") == []


def test_a_job_that_takes_over_what_a_killed_one_left_keeps_it(ws, monkeypatch):
    store = Store(ws.store.root, ws.store.s3)
    record = shard(store, A)
    store.put_asset(PICTURE, b"picture")
    monkeypatch.setattr(storage_module, "SWEEP_AGE_S", 1.0)  # so that a second is old
    time.sleep(2 * SECOND)
    again = shard(store, A)
    store.put_asset(PICTURE, b"picture")
    assert sweep(ws, age_s=SECOND, assets=True).removed == 0
    assert store.commit(again) == record


def test_what_is_taken_over_between_the_listing_and_the_removal_stays(ws, monkeypatch):
    path = f"artifacts/measure/{B}/table-0.parquet"
    leave(ws, path)
    named = stage._named_files

    def meanwhile(folder: str, same: Workspace) -> set[str] | None:
        tick(ws)  # after the horizon was drawn
        assert ws.store.files.renew(path)
        return named(folder, same)

    monkeypatch.setattr(stage, "_named_files", meanwhile)
    assert sweep(ws, age_s=0).removed == 0 and below(ws, "artifacts") == [path]


def test_a_file_that_was_removed_before_the_commit_is_not_committed(ws):
    record = shard(ws.store, A)
    ws.store.files.remove(f"artifacts/measure/{A}/{record.file('table').name}")
    with pytest.raises(StorageError, match="removed or cut before it was committed"):
        ws.store.commit(record)
    assert ws.store.load_record(MeasureShard, A) is None


def test_jobs_that_go_on_beside_gc_lose_nothing(place, ws):
    job = start(place, "jobs")
    for _ in range(4):
        sweep(ws, age_s=0)
        time.sleep(0.4)
    job.stdin.write("stop\n")
    job.stdin.flush()
    committed = int(job.communicate(timeout=60)[0])
    records = list(ws.store.records([MeasureShard.stage]))
    assert len(records) == committed > 3
    assert all(ws.store.read_file(record, "table") == b"rows" for record in records)


def test_an_asset_that_no_manifest_names_goes_only_when_asked_for(ws):
    named = sha256_hex(b"named")
    for asset_id, data in ((named, b"named"), (PICTURE, b"picture")):
        ws.store.put_asset(asset_id, data)
        ws.store.put_thumbnail(asset_id, 64, b"webp")
    table = table_to_parquet(pa.table({"asset_id": [named, None]}))
    file = ws.put_file(IngestPart, A, "table", table, ".parquet", 2)
    ws.commit(IngestPart(id=A, inputs=(), created_at="", files=(file,), sources=(), rules="", previous="", rows=2))
    tick(ws)
    assert sweep(ws, age_s=0).removed == 0 and sweep(ws, age_s=0, assets=True).removed == 2
    assert below(ws, "assets") + below(ws, "thumbnails") == [asset_path(named), thumbnail_path(named, 64)]


def test_no_asset_goes_while_a_manifest_cannot_be_read(ws):
    ws.store.put_asset(PICTURE, b"picture")
    ws.store.files.create(f"artifacts/ingest/{A}/record.json", b"{")
    tick(ws)
    with pytest.raises(CorruptArtifact):
        sweep(ws, age_s=0, assets=True)
    assert ws.store.has_asset(PICTURE)


# leases


def test_a_lease_beats_until_it_is_released(files):
    lease = Lease(files, beat_s=0.05)
    lease.take()
    lease.take()
    (first,) = leases(files)
    deadline = time.monotonic() + 10
    while (last := leases(files)[0]).seen == first.seen:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert last.since == first.since and last.name == lease.name and len(last.paths) <= 3
    lease.release()
    lease.release()
    assert leases(files) == []


def test_reading_takes_no_lease(ws):
    assert ws.store.load_record(MeasureShard, A) is None and leases(ws.store.files) == []
    ws.commit(shard(ws.store, A))
    assert [held.name for held in leases(ws.store.files)] == [ws.store.lease.name]


def test_a_storage_that_does_not_answer_costs_a_beat_and_no_more(files, monkeypatch):
    lease = Lease(files, beat_s=0.02)
    lease.take()
    create, refused = files.create, []

    def refuse(path: str, data: bytes) -> bool:
        if len(refused) < 3:
            refused.append(path)
            raise StorageError("does not answer")
        return create(path, data)

    monkeypatch.setattr(files, "create", refuse)
    deadline = time.monotonic() + 10
    while not any(path.endswith("/2") for held in leases(files) for path in held.paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lease.release()
    assert len(refused) == 3 and lease_module.BEAT_S * 5 <= lease_module.DEAD_AFTER_S
