"""An export that was killed goes on, one that is complete is checked, and nothing of others is touched; on a folder and on S3."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from discovery.adapters.export_target import open_target
from discovery.adapters.files import make_bucket
from discovery.adapters.sources import read_object
from discovery.adapters.storage import asset_path
from discovery.addressing import sha256_hex
from discovery.config import S3Config
from discovery.core.export_plan import ExportOptions
from discovery.errors import ConfigError, CorruptArtifact, MembersLost, UnknownRecord
from discovery.stages.export import LOST, STATE, export
from discovery.workspace import Workspace, open_workspace
from tests.contracts.conftest import PLACES, Place, new_place, s3_url, seaweedfs_url  # noqa: F401
from tests.export.conftest import fill, settings, tree

FORMS = ("imagefolder", "webdataset")  # of a file a picture, and of shards; parquet is packed by the same hands
KILLS = 2
SHARDS = ExportOptions(shard_examples=4)
PROJECT = Path(__file__).parents[2]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where exports go."""
    return new_place(request, tmp_path, monkeypatch)


def objects(place: Place) -> dict[str, bytes]:
    target = open_target(place.root, place.s3, "/nowhere")
    return {path: target.files.read(path) for path in target.sizes()}


@contextmanager
def reaching(place: Place, store: Path) -> Iterator[Workspace]:
    with open_workspace(settings(store, place.s3)) as ws:
        yield ws


@pytest.mark.parametrize("name", ["imagefolder", "webdataset", "coco", "parquet", "fiftyone", "list"])
def test_the_same_version_gives_the_same_bytes(name: str, ws: Workspace, tmp_path: Path) -> None:
    export("photos@1", name, str(tmp_path / "one"), ws, SHARDS)
    export("photos@1", name, str(tmp_path / "two"), ws, SHARDS)
    first, second = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert first == second and len(first) >= 6


def test_shards_are_the_same_from_a_source_and_a_store_elsewhere(source: Path, ws: Workspace, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(source.parent, tmp_path / "moved")
    fill(tmp_path / "moved" / "list.csv", settings(tmp_path / "other store"))
    for name in ("webdataset", "parquet"):
        export("photos@1", name, str(tmp_path / name / "one"), ws, SHARDS)
        with open_workspace(settings(tmp_path / "other store")) as other:
            export("photos@1", name, str(tmp_path / name / "two"), other, SHARDS)
        first, second = ({path: data for path, data in tree(tmp_path / name / one).items() if path.endswith((".tar", ".parquet"))} for one in ("one", "two"))
        assert first == second and len(first) > 4


@pytest.mark.parametrize("name", FORMS)
def test_a_killed_export_is_finished_by_the_same_command(name: str, place: Place, store: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, until one run comes through: the same bytes as undisturbed, and what was done is not read again."""
    rng = random.Random(f"{name} {place.s3.endpoint_url == ''}")
    with reaching(place, store) as ws:
        export("photos@1", name, str(tmp_path / "undisturbed"), ws, SHARDS)
    undisturbed = tree(tmp_path / "undisturbed")
    members = undisturbed["members.csv"].count(b"\n") - 1
    reads, kills, done = 0, 0, False
    while not done:
        command = [sys.executable, "-W", "ignore", "-m", "tests.export.exporting", str(store), place.s3.endpoint_url, name, place.root]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT)})
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        left = rng.randint((members - reads) // 3, (members - reads) // 2) if kills < KILLS else 10**9
        for line in process.stdout:
            reads += line == "read\n"
            done |= line == "done\n"
            left -= 1
            if left <= 0 and process.poll() is None:
                time.sleep(rng.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                left = 10**9
        process.communicate()
        assert process.returncode == (0 if done else -signal.SIGKILL)
        kills += not done
        found = objects(place)
        assert done or "discovery-export.json" not in found or {path: found[path] for path in undisturbed} == undisturbed
    assert kills == KILLS
    assert objects(place) == undisturbed
    assert reads <= members + kills * 6  # three in hand and a frame, or a shard of four; without resuming, a third to a half of all for each kill
    if not place.s3.endpoint_url:
        assert [path for path in Path(place.root).rglob("*") if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", FORMS)
def test_a_complete_export_is_checked_and_nothing_is_read_at_the_source(name: str, place: Place, store: Path) -> None:
    with reaching(place, store) as ws:
        first = export("photos@1", name, place.root, ws, SHARDS)
        ws.tally.clear()
        second = export("photos@1", name, place.root, ws, SHARDS)
        assert ws.tally["export.read"] == 0
    assert (second.files, second.bytes) == (first.files, first.bytes)
    assert (second.resumed, second.replaced) == (first.files - 1, 0)  # all but what says that it is complete


@pytest.mark.parametrize("name", FORMS)
def test_a_changed_a_cut_and_a_lost_file_are_found_and_made_again(name: str, place: Place, store: Path) -> None:
    with reaching(place, store) as ws:
        export("photos@1", name, place.root, ws, SHARDS)
        before = objects(place)
        files = place.open()
        suffix = {"imagefolder": ".webp", "webdataset": ".tar"}[name]
        changed, cut, lost = [path for path in sorted(before) if path.endswith(suffix)][:3]
        for path in (changed, cut, lost, "croissant.json"):
            files.remove(path)
        files.create(changed, bytes(byte ^ 1 for byte in before[changed][:10]) + before[changed][10:])  # of the same size
        files.create(cut, before[cut][:-1])
        files.create("croissant.json", b"{}")
        ws.tally.clear()
        done = export("photos@1", name, place.root, ws, SHARDS)
        assert objects(place) == before
        assert done.replaced == 3 and ws.tally["export.read"] <= (3 if name == "imagefolder" else 12)  # of three shards of four


def test_a_repair_that_is_killed_goes_on_as_well(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export("photos@1", "webdataset", str(out), ws, SHARDS)
    before = tree(out)
    shards = sorted(out.glob("*.tar"))
    for shard in shards[:2]:
        shard.write_bytes(shard.read_bytes()[:-512])

    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("discovery.adapters.export_target.ExportTarget.create", killed)
        with pytest.raises(Killed):
            export("photos@1", "webdataset", str(out), ws, SHARDS)
    with monkeypatch.context() as patch:
        patch.setattr("discovery.stages.export.read_asset", killed)
        with pytest.raises(Killed):
            export("photos@1", "webdataset", str(out), ws, SHARDS)
    assert not (out / "discovery-export.json").exists()
    assert export("photos@1", "webdataset", str(out), ws, SHARDS).replaced == 2
    assert tree(out) == before


def remove_assets(ws: Workspace) -> None:
    """Every original: what needs one ends with MembersLost."""
    for path in Path(ws.config.root, "assets").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize("name", ["webdataset", "parquet", "imagefolder", "coco"])
def test_changed_files_beside_whole_pictures_are_made_again_without_an_original(name: str, own_ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export("photos@1", name, str(out), own_ws, SHARDS)
    before = tree(out)
    (out / "members.csv").write_text("asset_id\n")
    (out / "SHA256SUMS").unlink()
    remove_assets(own_ws)
    done = export("photos@1", name, str(out), own_ws, SHARDS)
    assert tree(out) == before and done.replaced == 1
    assert done.resumed == len(before) - 3  # members.csv, the sums, and what says that it is complete


def test_rows_that_cannot_be_read_count_as_changed(own_ws: Workspace, tmp_path: Path) -> None:
    """As of an export of before, whose csv left a lone carriage return without quotes."""
    out = tmp_path / "out"
    export("photos@1", "webdataset", str(out), own_ws, SHARDS)
    before = tree(out)
    broken = before["members.csv"].replace(b"flower", b"flo\rwer")
    (out / "members.csv").write_bytes(broken)
    told = json.loads(before["discovery-export.json"])
    for one in told["files"]:
        if one["path"] == "members.csv":
            one |= {"sha256": sha256_hex(broken), "bytes": len(broken)}
    (out / "discovery-export.json").write_text(json.dumps(told))
    remove_assets(own_ws)
    assert export("photos@1", "webdataset", str(out), own_ws, SHARDS).replaced == 1
    assert tree(out) == before


def test_a_shard_that_holds_other_pictures_than_recorded_is_packed_again(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export("photos@1", "webdataset", str(out), ws, SHARDS)
    before = tree(out)
    first, second = sorted(out.glob("*.tar"))[:2]
    first.write_bytes(second.read_bytes())
    told = json.loads(before["discovery-export.json"])
    sums = {one["path"]: one for one in told["files"]}
    sums[first.name] |= {"sha256": sums[second.name]["sha256"], "bytes": sums[second.name]["bytes"]}
    (out / "discovery-export.json").write_text(json.dumps(told))
    (out / "members.csv").unlink()
    export("photos@1", "webdataset", str(out), ws, SHARDS)
    assert tree(out) == before


def test_the_state_that_a_kill_after_the_last_file_left_goes_with_the_next_check(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("discovery.adapters.export_target.ExportTarget.remove", killed)
        with pytest.raises(Killed):
            export("photos@1", "webdataset", str(out), ws, SHARDS)
    assert (out / "discovery-export.json").exists() and (out / STATE / "parts").is_dir()
    export("photos@1", "webdataset", str(out), ws, SHARDS)
    assert not (out / STATE).exists()


def test_what_a_living_writer_has_in_hand_is_not_swept_away(tmp_path: Path) -> None:
    mine, other = (open_target(str(tmp_path / "out"), S3Config(), "/nowhere") for _ in range(2))
    left = tmp_path / "out" / f".tmp-{'0' * 32}"
    left.touch()
    with mine.held():
        with other.held():
            mine.sweep(0, time.time() + 60)
            assert left.exists()  # the other may be writing it
            old = tmp_path / "out" / f".tmp-{'1' * 32}"
            old.touch()
            os.utime(old, (time.time() - 7200,) * 2)
            mine.sweep(0, time.time() + 60)
            assert left.exists() and not old.exists()
        mine.sweep(0, time.time() + 60)
        assert not left.exists()


@pytest.mark.parametrize("options", [ExportOptions(form="png"), ExportOptions(label="kind"), ExportOptions(shard_examples=9), None], ids=str)
@pytest.mark.parametrize("is_complete", [True, False], ids=["complete", "unfinished"])
def test_another_export_is_refused(options: ExportOptions | None, is_complete: bool, own_ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if is_complete:
        export("photos@1", "webdataset", str(out), own_ws, SHARDS)
    else:
        lost = next(path for path in Path(own_ws.config.root, "assets").rglob("*") if path.is_file())
        data = lost.read_bytes()
        lost.write_bytes(b"changed")
        with pytest.raises(MembersLost):
            export("photos@1", "webdataset", str(out), own_ws, SHARDS)
        lost.write_bytes(data)
    before = tree(out)
    with pytest.raises(ConfigError, match=r"holds an( unfinished)? export of photos@1 .* as webdataset.*Choose another --out"):
        export("photos@1", "webdataset" if options else "coco", str(out), own_ws, options or SHARDS)
    assert tree(out) == before
    done = export("photos@1", "webdataset", str(out), own_ws, SHARDS)
    assert (done.resumed > 0, done.replaced) == (True, 0)


@pytest.mark.parametrize("stranger", ["train/flower/mine.jpg", "README.md", "croissant.json", "data/train-x.parquet", "discovery-export.json"])
def test_files_of_others_are_left_alone_and_refused_where_ours_go(stranger: str, ws: Workspace, tmp_path: Path) -> None:
    name = "imagefolder" if stranger.startswith("train") else "parquet"
    file = tmp_path / "out" / stranger
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}")
    with pytest.raises(ConfigError, match="another --out"):
        export("photos@1", name, str(tmp_path / "out"), ws)
    assert tree(tmp_path / "out") == {stranger: b"{}"}


def test_files_of_others_beside_ours_stay(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".tmp-mine").write_text("mine too")
    export("photos@1", "imagefolder", str(tmp_path), ws)
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / ".tmp-mine").exists()
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0


def test_a_file_that_came_into_an_unfinished_export_is_not_written_over(own_ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (version,) = own_ws.catalog.records("curate")
    path = Path(own_ws.config.root, asset_path(own_ws.store.read_table(version)["asset_id"].to_pylist()[0]))
    data = path.read_bytes()
    path.write_bytes(b"changed")
    with pytest.raises(MembersLost):
        export("photos@1", "webdataset", str(out), own_ws, SHARDS)
    path.write_bytes(data)
    (missing,) = {"train-000000.tar", "test-000000.tar"} - {one.name for one in out.glob("*.tar")}
    (out / missing).write_bytes(b"another's")
    with pytest.raises(ConfigError, match=f"{missing} is there with other bytes"):
        export("photos@1", "webdataset", str(out), own_ws, SHARDS)
    assert (out / missing).read_bytes() == b"another's"


@pytest.mark.parametrize("name", FORMS)
def test_members_whose_bytes_are_gone_or_changed_are_named_and_the_export_is_not_complete(name: str, own_ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (version,) = own_ws.catalog.records("curate")
    gone, changed = own_ws.store.read_table(version)["asset_id"].to_pylist()[3:5]
    kept = {one: Path(own_ws.config.root, asset_path(one)).read_bytes() for one in (gone, changed)}
    for row in own_ws.store.read_table(version).to_pylist():
        if row["asset_id"] in kept:
            assert Path(row["source_uri"].split("#t=")[0]).exists()  # from where a lost one would be read
    Path(own_ws.config.root, asset_path(gone)).write_bytes(b"")
    Path(own_ws.config.root, asset_path(changed)).write_bytes(kept[changed][:-1])
    with pytest.raises(MembersLost, match=rf"not complete: 2 of \d+ members cannot be read\. .*{min(gone, changed)[:12]}.*{max(gone, changed)[:12]}") as caught:
        export("photos@1", name, str(out), own_ws, SHARDS)
    assert caught.value.exit_code == 1
    assert not (out / "discovery-export.json").exists() and (out / STATE).is_dir()
    for one, data in kept.items():
        Path(own_ws.config.root, asset_path(one)).write_bytes(data)
    own_ws.tally.clear()
    done = export("photos@1", name, str(out), own_ws, SHARDS)
    frames = sum("#t=" in row["source_uri"] for row in own_ws.store.read_table(version).to_pylist())  # whose hash is not their name
    assert own_ws.tally["export.read"] <= (2 + frames if name == "imagefolder" else 8)  # two shards of four
    assert done.resumed > 0 and not (out / STATE).exists()


def test_pictures_that_stay_at_their_source_are_read_there_and_missed_there(source: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(source.parent, tmp_path / "source")
    pointing = settings(tmp_path / "store", ingest={"store_bytes": False})
    fill(tmp_path / "source" / "list.csv", pointing)
    (tmp_path / "source" / "part 05.png").unlink()
    (tmp_path / "source" / "part 06.webp").write_bytes(b"another picture")
    with open_workspace(pointing) as ws:
        with pytest.raises(MembersLost, match="2 of"):
            export("photos@1", "imagefolder", str(tmp_path / "out"), ws)
        for name in ("part 05.png", "part 06.webp"):
            shutil.copy(source.parent / name, tmp_path / "source" / name)
        export("photos@1", "imagefolder", str(tmp_path / "out"), ws)


def test_a_picture_in_an_archive_that_was_damaged_is_told_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.png", bytes(1000))
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:500] + b"x" + whole[501:], b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(CorruptArtifact, match=r"zip://one\.png.*: the archive is damaged"):
            read_object(f"zip://one.png::{path}", S3Config())
    assert CorruptArtifact in LOST


@pytest.mark.parametrize("place", PLACES[1:], indirect=True)
def test_a_store_in_a_bucket_is_exported_as_one_in_a_folder(place: Place, source: Path, ws: Workspace, tmp_path: Path) -> None:
    remote = settings(place.root, place.s3)
    fill(source, remote)
    export("photos@1", "webdataset", str(tmp_path / "one"), ws, SHARDS)
    with open_workspace(remote) as there:
        export("photos@1", "webdataset", str(tmp_path / "two"), there, SHARDS)
        bucket = place.root.removesuffix("a prefix") + "exports"
        export("photos@1", "webdataset", bucket, there, SHARDS)
        with pytest.raises(ConfigError, match="lies in the store"):
            export("photos@1", "webdataset", f"{place.root}/exports", there)
    assert tree(tmp_path / "two") == objects(Place(bucket, place.s3))
    one, two = ({path: data for path, data in tree(tmp_path / name).items() if path.endswith((".tar", ".csv"))} for name in ("one", "two"))
    assert one == two and len(one) > 4  # the metadata tells when each of the two stores made the version


def test_what_cannot_be_asked_for_is_told_with_what_can(ws: Workspace, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match='Did you mean "imagefolder"'):
        export("photos@1", "imagefolders", out, ws)
    with pytest.raises(ConfigError, match="no such column"):
        export("photos@1", "list", out, ws, ExportOptions(label="lable"))
    with pytest.raises(UnknownRecord):
        export("photos@7", "list", out, ws)
    with pytest.raises(ConfigError, match="lies in the store"):
        export("photos@1", "list", f"{ws.config.root}/out", ws)
    for place in (Path(ws.config.root).parent, Path(ws.config.root).parent.parent):
        with pytest.raises(ConfigError, match="holds the store"):
            export("photos@1", "list", str(place), ws)
    for empty in ("", " ", "file://"):
        with pytest.raises(ConfigError, match="--out is empty"):
            export("photos@1", "list", empty, ws)
    with pytest.raises(ConfigError, match="holds the store"):
        open_target("s3://bucket/a", S3Config(), "s3://bucket/a/store")
    with pytest.raises(ConfigError, match="neither a folder nor s3"):
        export("photos@1", "list", "memory://out", ws)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is a file"):
        export("photos@1", "list", str(file), ws)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_is_not_there_is_told(ws: Workspace, moto_endpoint: str) -> None:
    from dataclasses import replace

    here = replace(ws, config=ws.config.replace(s3={"endpoint_url": moto_endpoint}))
    with pytest.raises(ConfigError, match="does not exist"):
        export("photos@1", "list", "s3://nowhere/out", here)
    make_bucket("s3://somewhere", S3Config(endpoint_url=moto_endpoint))
    assert export("photos@1", "list", "s3://somewhere", here).files == 6
