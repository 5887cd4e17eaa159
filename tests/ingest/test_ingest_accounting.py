"""Accounts of a mixed source: every object that is listed is so many rows, each of them one thing, and the second run's counts add up."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.ingest.test_ingest_incremental import open_root, picture, read_by, rows

KINDS = ["picture", "copy", "truncated", "empty", "text", "zip", "broken zip", "sidecar"]
TIMES_S = [-1, 0, 10_413_792_000]  # 1969, 1970 and 2300; nanoseconds in 64 bits end in 2262
MEMBERS = 5  # of each zip
FOLDERS = ["photos", "photos/sub", "disk"]  # disk is linked as photos/album


def write(base: Path, slot: int, kind: str, seed: int) -> None:
    """A file of a kind in the folder of its slot, and no other file of that slot."""
    folder = base / FOLDERS[slot % 3]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{slot}.*"):
        old.unlink()
    if kind == "sidecar":
        path = folder / f"{slot}.json"
        path.write_text(f'{{"label": "{seed}"}}')
    elif "zip" in kind:
        path = folder / f"{slot}.zip"
        inside = picture(base / "made.png", seed).read_bytes()
        members = [("a.png", inside), ("a.png", inside + b" "), ("a.json", b'{"x": 1}'), ("a.json", b'{"x": 2}'), ("b.txt", b"text")]
        with pytest.warns(UserWarning, match="Duplicate name"):
            write_zip(path, members)
        if kind == "broken zip":
            path.write_bytes(path.read_bytes()[:40])
    else:
        path = picture(folder / f"{slot}.png", 1 if kind == "copy" else seed)
        if kind not in ("picture", "copy"):
            path.write_bytes({"truncated": path.read_bytes()[:70], "empty": b"", "text": b"hello"}[kind])
    os.utime(path, ns=((TIMES_S[seed % 3] * 10**9 + seed),) * 2)


def write_zip(path: Path, members: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)


def objects(base: Path) -> dict[str, tuple[int, int, int]]:
    """What both sources list: rows of each object, its size and its time."""

    def real_files() -> Iterator[tuple[str, Path]]:
        for path in (base / "photos").rglob("*"):
            if path.is_file() and not path.is_relative_to(base / "photos" / "album"):
                yield str(path), path
        yield from ((str(base / "photos" / "album" / path.name), path) for path in (base / "disk").iterdir() if path.is_file())
        yield str(base / "outside.png"), base / "outside.png"

    found = {}
    for uri, path in real_files():
        is_whole_zip = path.suffix == ".zip" and path.stat().st_size > 40
        found[uri] = (MEMBERS if is_whole_zip else 1, path.stat().st_size, path.stat().st_mtime_ns)
    return found | {str(base / "nowhere.png"): (1, 0, 0)}


SLOTS = st.lists(st.sampled_from(KINDS), min_size=6, max_size=9)
ACTIONS = st.lists(st.sampled_from(["keep", "keep", "remove", "move", *KINDS]), min_size=9, max_size=9)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SLOTS, ACTIONS)
def test_two_runs_over_anything_add_up(tmp_path_factory: pytest.TempPathFactory, slots: list[str], actions: list[str]) -> None:
    base = tmp_path_factory.mktemp("mixed")
    picture(base / "photos" / "always.png", 1)
    (base / "photos" / "always.json").write_text('{"label": "one"}')
    (base / "disk").mkdir()
    (base / "photos" / "album").symlink_to(base / "disk")
    (base / "photos" / "album" / "back").symlink_to(base / "photos")
    picture(base / "outside.png", 500)
    (base / "list.csv").write_text("uri,stars\nphotos/always.png,5\noutside.png,4\nnowhere.png,3\n")
    for slot, kind in enumerate(slots):
        write(base, slot, kind, 10 + slot)
    sources = (base / "photos", base / "list.csv")
    with open_root(base / "store") as ws, open_root(base / "fresh") as fresh:  # type: ignore[attr-defined]
        before = objects(base)
        first, read = read_by(ws, *sources)
        earlier = rows(first, ws)
        assert Counter(row["object_uri"] for row in earlier) == {uri: count for uri, (count, _, _) in before.items()}
        assert (first.unchanged, read, first.removed) == (0, len(before), 0)

        picture(base / "photos" / "new.png", 900)
        for slot, action in enumerate(actions[: len(slots)]):
            if action in KINDS:
                write(base, slot, action, 100 + slot)
                continue
            for path in (base / FOLDERS[slot % 3]).glob(f"{slot}.*"):
                if action == "remove":
                    path.unlink()
                elif action == "move":
                    path.rename(path.with_name(f"moved-{path.name}"))
        after = objects(base)
        second, read = read_by(ws, *sources)
        found = rows(second, ws)
        assert Counter(row["object_uri"] for row in found) == {uri: count for uri, (count, _, _) in after.items()}
        kinds = Counter("asset" if row["asset_id"] else "rejection" if row["reason"] else "sidecar" for row in found)
        assert (second.rows, second.rejected, second.sidecars) == (len(found), kinds["rejection"], kinds["sidecar"])
        assert all(row["reason"] is None for row in found if row["asset_id"]) and kinds.total() == len(found)
        same = {uri for uri in after if before.get(uri) == after[uri] and not uri.endswith("nowhere.png")}
        assert (second.unchanged, read) == (len(same), len(after) - len(same))
        gone = [row["asset_id"] for row in earlier if row["asset_id"] and row["object_uri"] not in after]
        came = {row["asset_id"] for row in found if row["asset_id"] and row["object_uri"] not in same}
        assert (second.removed, second.moved) == (len(gone), len(came & set(gone)))
        assert found == rows(read_by(fresh, *sources)[0], fresh)  # as if the first run had never been
