"""What every place under a root must do, on a local folder and on a real S3 server."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from discovery.adapters.files import ATTEMPTS, TEMPORARY, Files, LocalFiles, S3Files, open_files
from discovery.addressing import sha256_hex
from discovery.config import S3Config
from discovery.errors import AccessDenied, ConfigError, SourceNotFound, StorageError, StorageFull
from tests.contracts.conftest import PLACES, kill, new_place, start
from tests.contracts.writer import LARGE, RACES, WITHOUT_LINKS, no_links

NAMES = ["plain", "a/b/c.json", "with space", "ümlaut-日本", "100%", "a+b", "q?x=1", "hash#tag", "semi;colon&and=", "x" * 200, ".hidden"]


@pytest.fixture(params=[*PLACES, WITHOUT_LINKS])
def place(request, tmp_path, monkeypatch):
    """And on a folder of a file system without hard links."""
    return new_place(request, tmp_path, monkeypatch)


def paths(files: Files, prefix: str = "") -> list[str]:
    return sorted(entry.path for entry in files.walk(prefix))


# reading back


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12])
def test_an_object_is_found_under_its_name_and_no_other(files, name):
    assert files.create(name, b"12345") is True
    assert files.read(name) == b"12345" and paths(files) == [name]
    entry = files.stat(name)
    assert (entry.path, entry.size_bytes) == (name, 5) and abs(entry.changed - time.time()) < 60
    assert list(files.walk("")) == [entry]


def test_what_is_not_there_is_not_there(files):
    files.create("folder/object", b"1")
    with pytest.raises(FileNotFoundError):
        files.read("nothing")
    for absent in ("nothing", "folder", "folder/obj"):
        assert files.stat(absent) is None
    assert paths(files, "nothing") == [] and files.renew("nothing") is False
    files.remove("nothing")


def test_a_part_of_an_object_is_read_by_its_place(files):
    files.create("digits", b"0123456789")
    assert (files.read_range("digits", 2, 5), files.read_range("digits", 0, 1), files.read_range("digits", 8, 50)) == (b"234", b"0", b"89")
    with pytest.raises(FileNotFoundError):
        files.read_range("nothing", 0, 5)


def test_an_object_is_copied_into_a_local_file_without_being_held(files, tmp_path):
    body = os.urandom(LARGE)
    files.create("large", body)
    tracemalloc.start()
    files.read_into("large", tmp_path / "copy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sha256_hex((tmp_path / "copy").read_bytes()) == sha256_hex(body) and peak < LARGE / 2
    files.create("empty", b"")
    files.read_into("empty", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        files.read_into("nothing", tmp_path / "copy")


def test_an_empty_object_is_an_object(files):
    assert files.create("empty", b"") is True and files.create("empty", b"x") is False
    assert files.read("empty") == b"" and files.stat("empty").size_bytes == 0


def test_a_large_object_comes_back_whole_and_is_created_once(files):
    body = os.urandom(LARGE)  # in parts on S3
    assert files.create("large", body) is True and files.create("large", bytes(LARGE)) is False
    assert sha256_hex(files.read("large")) == sha256_hex(body) and files.stat("large").size_bytes == LARGE


def test_a_file_becomes_an_object_without_being_held_in_memory(files, tmp_path):
    size = 16 * 5 * 2**20
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1024) * (size // 1024))
    files.create("warm", b"")  # what a first call loads is not counted
    tracemalloc.start()
    assert files.create_from("large", source) is True and files.create_from("large", source) is False
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size * 0.6  # four parts of sixteen on S3, and what its client copies of them; 1 MiB in a folder
    assert files.stat("large").size_bytes == size and sha256_hex(files.read("large")) == sha256_hex(source.read_bytes())
    source.write_bytes(b"")
    assert files.create_from("empty", source) is True and files.read("empty") == b""
    with pytest.raises(SourceNotFound):
        files.create_from("x", tmp_path / "nothing")
    assert files.stat("x") is None


def test_walk_lists_a_folder_and_nothing_beside_it(files):
    for path in ("w/a/1", "w/b/2", "w2/3", "v"):
        files.create(path, b"123")
    assert paths(files, "w") == ["w/a/1", "w/b/2"] and paths(files, "w/a") == ["w/a/1"]
    assert paths(files) == ["v", "w/a/1", "w/b/2", "w2/3"]


def test_more_than_one_page_is_listed(files, monkeypatch):
    monkeypatch.setattr("discovery.adapters.files.PAGE", 10)
    for number in range(25):
        files.create(f"many/{number:02d}", b"")
    assert paths(files, "many") == [f"many/{number:02d}" for number in range(25)]


def test_a_removed_object_is_gone_and_may_be_made_again(files):
    files.create("x", b"one")
    files.remove("x")
    assert files.stat("x") is None
    assert files.create("x", b"two") is True and files.read("x") == b"two"


def test_a_renewed_object_is_younger_and_the_same(place, files):
    files.create("x", b"one")
    before = files.stat("x").changed
    time.sleep(1.1 if place.root.startswith("s3://") else 0.02)  # S3 tells whole seconds
    assert files.renew("x") is True
    assert files.stat("x").changed > before and files.read("x") == b"one"


# exclusive creation


@pytest.mark.parametrize("size", [2000, LARGE], ids=["small", "large"])
def test_of_eight_threads_one_creates_and_all_see_its_bytes(files, size):
    bodies = [bytes([n]) * size for n in range(8)]
    for attempt in range(6 if size == 2000 else 1):

        def write(body: bytes, name: str = f"race/{attempt}") -> tuple[bool, bytes]:
            return files.create(name, body), files.read(name)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(write, bodies))
        assert [made for made, _ in results].count(True) == 1
        winner = bodies[[made for made, _ in results].index(True)]
        assert all(seen == winner for _, seen in results)


def test_a_file_that_eight_threads_create_at_once_is_whole(files, tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(251)) * (LARGE // 251))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: (files.create_from("race", tmp_path / "file"), files.read("race")), range(8)))
    assert any(first for first, _ in made)  # more than one may be told so
    assert all(seen == (tmp_path / "file").read_bytes() for _, seen in made)


def test_of_two_processes_one_creates_each_name(place, files):
    both = [start(place, "race") for _ in range(2)]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = {process.pid: process.communicate(timeout=120)[0].strip() for process in both}
    numbers = [int(n) for text in won.values() for n in text.split(",") if n]
    assert sorted(numbers) == list(range(RACES))
    for pid, text in won.items():
        assert all(files.read(f"race/{n}") == str(pid).encode() * 2000 for n in text.split(",") if n)


# killed writers


def test_a_writer_killed_before_the_end_leaves_nothing_to_see(place, files):
    process = start(place, "stall")
    kill(process)
    assert files.stat("large") is None and paths(files) == []
    with pytest.raises(FileNotFoundError):
        files.read("large")
    left = files.drop_unfinished(time.time() + 60, dry_run=True)
    assert len(left) == 1 and files.drop_unfinished(left[0].changed) == []  # not older than that: its writer may live
    assert files.drop_unfinished(time.time() + 60) == left and files.drop_unfinished(time.time() + 60) == []
    assert files.create("large", b"at last") is True


def test_whatever_a_killed_writer_made_is_whole(place, files):
    rng = random.Random(8)
    made: list[str] = []
    for _ in range(3):
        before, deadline = len(made), time.monotonic() + 60
        process = start(place, "stream")
        while len(paths(files, "stream")) == before:  # a busy machine takes its time to begin
            assert time.monotonic() < deadline, "nothing was written in a minute"
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 0.5))
        kill(process)
        made = paths(files, "stream")
    assert all(sha256_hex(files.read(path)) == path.removeprefix("stream/") for path in made)


# errors


def test_a_missing_bucket_is_named(s3_url, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with pytest.raises(SourceNotFound, match="s3://nowhere-at-all"):
        open_files("s3://nowhere-at-all/x", S3Config(endpoint_url=s3_url))


def test_a_store_without_exclusive_creation_is_refused():
    with pytest.raises(ConfigError, match="neither a folder nor s3"):
        open_files("memory://somewhere", S3Config())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("discovery.adapters.files.os.fsync", full)
    with pytest.raises(StorageFull, match="no space left"):
        LocalFiles(tmp_path).create("x/y", b"one")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def synced(monkeypatch) -> list[str]:
    """What is synced from now on, in order: paths."""
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda handle: seen.append(os.readlink(f"/proc/self/fd/{handle}")))
    return seen


def test_a_name_and_the_folders_made_for_it_are_synced_after_the_bytes(tmp_path, monkeypatch):
    seen = synced(monkeypatch)
    local = open_files(str(tmp_path / "root"), S3Config())
    assert seen == [str(tmp_path)]  # which the root was made in
    seen.clear()
    local.create("a/b/one", b"1")
    temporary, *folders = seen
    assert f"root/a/b/{TEMPORARY}" in temporary and folders == [str(tmp_path / "root" / name) for name in ("a/b", "", "a")]
    seen.clear()
    local.create("a/b/two", b"2")
    assert seen[1:] == [str(tmp_path / "root/a/b")]
    seen.clear()
    assert local.create("a/b/two", b"2") is False and seen == []


def test_a_name_that_another_writer_took_meanwhile_is_synced_too(tmp_path, monkeypatch):
    local = LocalFiles(tmp_path)
    seen = synced(monkeypatch)

    def other_was_first(draft: Path, target: Path) -> None:
        target.write_bytes(b"theirs")
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr("discovery.adapters.files.take_name", other_was_first)
    assert local.create("x", b"ours") is False and local.read("x") == b"theirs"
    assert seen[1:] == [str(tmp_path)]


@pytest.mark.parametrize(("number", "is_made"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_synced_is_no_error_and_one_whose_sync_fails_is(tmp_path, monkeypatch, number, is_made):
    real = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr("os.fsync", fail)
    if is_made:
        assert LocalFiles(tmp_path).create("x", b"one") is True
    else:
        with pytest.raises(StorageError, match="Writing"):
            LocalFiles(tmp_path).create("x", b"one")


def unsupported(*_: object) -> int:
    """renameat2 on a file system that does not know its flag."""
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.mark.parametrize("rename", [None, unsupported], ids=["no such function", "no such flag"])
def test_a_file_system_without_links_and_without_exclusive_renames_is_refused(tmp_path, monkeypatch, rename):
    monkeypatch.setattr("os.link", no_links)
    monkeypatch.setattr("discovery.adapters.naming._renameat2", lambda: rename)
    with pytest.raises(StorageError, match="neither hard links nor a rename that never replaces"):
        LocalFiles(tmp_path).create("x", b"one")
    assert list(tmp_path.iterdir()) == []


def test_a_name_below_an_object_is_refused_and_not_taken_for_made(tmp_path):
    local = LocalFiles(tmp_path)
    local.create("x", b"one")
    with pytest.raises(StorageError, match="Writing"):
        local.create("x/y", b"two")


class Answers:
    """An S3 file system whose uploads answer with what is given, in turn."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)

    def call_s3(self, method: str, **_: object) -> dict[str, object]:
        raise FileNotFoundError(method)

    def pipe_file(self, *_: object, **__: object) -> None:
        if (error := self.errors.pop(0)) is not None:
            raise error


def test_a_conflict_of_two_conditional_writes_is_tried_again(monkeypatch):
    monkeypatch.setattr("discovery.adapters.files.PAUSE_S", 0.001)
    conflict = OSError("An error occurred (ConditionalRequestConflict) when calling the PutObject operation")
    taken = OSError("An error occurred (PreconditionFailed) when calling the PutObject operation")
    assert S3Files(Answers(conflict, None), "b/p").create("x", b"") is True
    assert S3Files(Answers(conflict, taken), "b/p").create("x", b"") is False
    with pytest.raises(StorageError, match="Writing b/p/x"):
        S3Files(Answers(*[conflict] * ATTEMPTS), "b/p").create("x", b"")


def test_a_refused_write_says_what_was_refused():
    with pytest.raises(AccessDenied, match="Writing b/p/x: access denied"):
        S3Files(Answers(PermissionError("AccessDenied")), "b/p").create("x", b"")


def test_a_file_that_is_being_written_is_not_listed(tmp_path):
    (tmp_path / f"{TEMPORARY}1").write_bytes(b"half")
    assert list(LocalFiles(tmp_path).walk("")) == []
