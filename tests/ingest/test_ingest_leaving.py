"""What an ingest that is slow, left or killed keeps: results come as they finish, and leaving waits for nothing long."""

from __future__ import annotations

import threading
import time
import zipfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from discovery.adapters.decoder_pool import DecodeLimits, DecoderPool
from discovery.adapters.ingest_tables import IngestTables
from discovery.config import Config
from discovery.errors import DiscoveryError
from discovery.stages import ingest as stage
from discovery.stages.ingest import ingest
from discovery.types import IngestPart
from discovery.workspace import Workspace, open_workspace
from tests.adapters.camera_files import photo
from tests.ingest.test_decoder_pool import FAULTY, decoders, png

HANGS = png(63)  # in the faulty decoder, for an hour


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def opened(root: Path, **settings: object) -> Workspace:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, ingest={"decoders": 2, **settings}))


def test_results_come_as_they_finish() -> None:
    others = threading.Event()

    def work(number: int) -> Generator[int, None, None]:
        assert number or others.wait(30)  # the first ends after all others
        yield number

    seen = []
    for number in stage._as_finished(work, range(200), 2, lambda: None):
        if number is not None:
            seen.append(number)
        if len(seen) == 199:
            others.set()
    assert seen == [*range(1, 200), 0]


def test_leaving_early_ends_what_is_under_way_and_begins_nothing() -> None:
    begun, ended, stopped = [], [], []

    def work(number: int) -> Generator[int, None, None]:
        begun.append(number)
        try:
            while True:
                yield number
        finally:
            ended.append(number)

    with closing(stage._as_finished(work, range(1000), 3, lambda: stopped.append(True))) as results:
        assert next(results) in (0, 1, 2)
    assert sorted(begun) == sorted(ended) and set(begun) <= {0, 1, 2} and stopped == [True]


def test_an_error_of_one_item_is_the_callers() -> None:
    def work(number: int) -> Generator[int, None, None]:
        if number == 7:
            raise DiscoveryError("seven")
        yield number

    with pytest.raises(DiscoveryError, match="seven"):
        list(stage._as_finished(work, range(1000), 4, lambda: None))


def test_stopped_decoders_leave_a_hanging_picture_at_once() -> None:
    with DecoderPool(1, DecodeLimits(10**6, 32, 120.0, 4 * 2**30), FAULTY) as pool, ThreadPoolExecutor(1) as threads:
        pool.examine(png(10))  # its process has started
        hanging = threads.submit(pool.examine, HANGS)
        while not pool._busy:
            time.sleep(0.01)
        pool.stop()
        with pytest.raises(DiscoveryError, match="stopped"):
            hanging.result(timeout=20)
        with pytest.raises(DiscoveryError, match="stopped"):
            pool.examine(png(10))
    assert decoders() == []


def test_a_run_that_is_left_waits_for_no_hanging_picture_and_keeps_what_had_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.png").write_bytes(HANGS if number == 0 else png(20 + number))
    keep = stage._keep_part

    def keep_then_leave(*arguments: object) -> None:
        keep(*arguments)  # type: ignore[arg-type]
        if sum(part.rows for part in ws.catalog.records(IngestPart.stage)) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "DecoderPool", lambda size, limits: DecoderPool(size, limits, FAULTY))
    monkeypatch.setattr(stage, "CHECKPOINT_S", 1.0)
    monkeypatch.setattr(stage, "_keep_part", keep_then_leave)  # when the time is up, though nothing more comes
    with opened(tmp_path / "root", decode_seconds=60.0) as ws:
        with pytest.raises(KeyboardInterrupt):
            ingest([str(tmp_path / "photos")], ws)
        assert decoders() == []
        kept = [row for part in ws.catalog.records(IngestPart.stage) for row in ws.store.read_table(part).to_pylist()]
        assert sorted(Path(row["source_uri"]).name for row in kept) == [f"{number}.png" for number in range(1, 6)]


def test_a_kill_within_an_archive_keeps_no_part_of_it_and_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for seed in range(7):
            archive.writestr(f"{seed}.jpg", photo(seed=seed))
    for seed in range(10, 13):
        (folder / f"{seed}.jpg").write_bytes(photo(seed=seed))
    with opened(tmp_path / "whole") as ws:
        reference = ws.store.read_table(ingest([str(folder)], ws)).to_pylist()
    monkeypatch.setattr(stage, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(stage, "CHECKPOINT_S", 0.0)

    def leave(*arguments: object) -> None:
        raise KeyboardInterrupt

    with opened(tmp_path / "root", read_threads=1) as ws:  # the archive is the last by name
        with monkeypatch.context() as patched:
            patched.setattr(IngestTables, "take_begun", leave)  # all its rows are there, and it has not ended
            with pytest.raises(KeyboardInterrupt):
                ingest([str(folder)], ws)
        kept = [row for part in ws.catalog.records(IngestPart.stage) for row in ws.store.read_table(part).to_pylist()]
        assert sorted(Path(row["source_uri"]).name for row in kept) == ["10.jpg", "11.jpg", "12.jpg"]
        assert ws.store.read_table(ingest([str(folder)], ws)).to_pylist() == reference
