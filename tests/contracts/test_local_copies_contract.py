"""Files of records as local files, on a folder and on buckets: hashed once, copied once, refused when changed, forgotten when there is no room."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from discovery.adapters import local_copies
from discovery.adapters.storage import Store
from discovery.config import is_remote
from discovery.errors import CorruptArtifact
from discovery.types import MeasureShard
from tests.contracts.conftest import Place
from tests.contracts.writer import shard

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed."""
    found: list[str] = []
    plain = local_copies.file_sha256

    def counted(path: Path) -> str:
        found.append(path.name)
        return plain(path)

    monkeypatch.setattr(local_copies, "file_sha256", counted)
    return found


def record(store: Store, key: str, data: bytes) -> MeasureShard:
    return store.commit(shard(store, key, data))


def test_a_file_is_hashed_and_looked_through_once(place: Place, hashed: list[str]) -> None:
    looked: list[Path] = []
    for _ in range(2):  # the second time as another process would: nothing but the store and the cache is there
        store = Store(place.root, place.s3)
        kept = record(store, A, b"rows")
        for _ in range(2):
            path = store.local_file(kept, "table", looked.append)
            assert path.read_bytes() == b"rows" and path.is_relative_to(store.copies.folder) == is_remote(place.root)
    assert len(hashed) == len(looked) == 1


def test_another_check_is_made_though_the_hash_is_known(place: Place, hashed: list[str]) -> None:
    store = Store(place.root, place.s3)
    kept = record(store, A, b"rows")
    seen: list[str] = []

    def first(path: Path) -> None:
        seen.append("first")

    def second(path: Path) -> None:
        seen.append("second")

    for check in (None, first, second, second):
        store.local_file(kept, "table", check)
    assert seen == ["first", "second"]


def test_what_fails_its_check_is_not_remembered(place: Place) -> None:
    store = Store(place.root, place.s3)
    kept = record(store, A, b"rows")

    def refuse(path: Path) -> None:
        raise CorruptArtifact("no graph")

    for _ in range(2):
        with pytest.raises(CorruptArtifact, match="no graph"):
            store.local_file(kept, "table", refuse)


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_file_that_was_changed_here_is_refused_or_copied_again(place: Place, keep_times: bool) -> None:
    store = Store(place.root, place.s3)
    kept = record(store, A, b"rows")
    path = store.local_file(kept, "table")
    before = path.stat()
    path.chmod(0o600)
    path.write_bytes(b"Rows")  # as long as before
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CorruptArtifact, match="was changed after it was written"):
        Store(place.root, place.s3).local_file(kept, "table")
    if is_remote(place.root):
        assert Store(place.root, place.s3).local_file(kept, "table").read_bytes() == b"rows"


def test_a_file_that_is_not_there_is_told(place: Place) -> None:
    store = Store(place.root, place.s3)
    kept = record(store, A, b"rows")
    store.files.remove(store.file_path(kept, "table"))
    with pytest.raises(CorruptArtifact, match="is missing though its record names it"):
        store.local_file(kept, "table")


def test_a_stamp_that_is_no_stamp_costs_a_hash(place: Place, hashed: list[str]) -> None:
    store = Store(place.root, place.s3)
    kept = record(store, A, b"rows")
    store.local_file(kept, "table")
    for stamp in (store.copies.folder / "checked").iterdir():
        stamp.write_text("{")
    assert store.local_file(kept, "table").read_bytes() == b"rows" and len(hashed) == 2


def test_copies_used_longest_ago_make_room(place: Place) -> None:
    if not is_remote(place.root):
        pytest.skip("a local root has no copies")
    store = Store(place.root, place.s3)
    kept = [record(store, key, data * 1000) for key, data in ((A, b"a"), (B, b"b"), (C, b"c"))]
    first = store.local_file(kept[0], "table", limit=2500)
    opened = first.open("rb")
    second = store.local_file(kept[1], "table", limit=2500)
    stamps = store.copies.folder / "checked"
    for number, one in ((1, 0), (2, 1)):
        os.utime(stamps / f"{kept[one].file('table').sha256}.json", (number, number))
    store.local_file(kept[0], "table", limit=2500)  # used now
    third = store.local_file(kept[2], "table", limit=2500)
    assert first.exists() and not second.exists() and third.exists()
    store.local_file(replace(kept[1]), "table", limit=1000)
    assert not first.exists() and opened.read() == b"a" * 1000  # who has it open keeps it
    opened.close()
