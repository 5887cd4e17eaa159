"""An index after any sequence of adding, removing and compacting answers as one that was built at once; audits; swaps; integrity."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discovery.config import Config
from discovery.core.draws import id_array
from discovery.core.knn import exact_knn, normalise
from discovery.core.recall import recall_at_k
from discovery.core.tiers import compaction
from discovery.errors import CorruptArtifact, EncoderMismatch, InvalidInput
from discovery.stages.audit import audit
from discovery.stages.history import current_snapshot
from discovery.stages.index import Content, commit_snapshot, content_of, grown, merged, opened, shapes_of, succeed
from discovery.stages.maintain import audit_recall, maintain
from discovery.stages.open_index import open_index
from discovery.stages.segments import Ids
from discovery.types import IndexSnapshot, Segment
from discovery.workspace import Workspace, open_workspace

DIM = 12
ENCODER = "test/encoder"
TINY = {"exact_rows": 40, "segment_rows": 120, "max_segments": 2, "m": 8, "ef_construction": 60, "exact_queries": 0, "audit_queries": 200}


def names(numbers: list[int] | range) -> Ids:
    return id_array([hashlib.sha256(str(number).encode()).hexdigest() for number in numbers])


def vectors_of(ids: Ids) -> np.ndarray:
    """A vector for each id, the same every time: six clusters of very unlike sizes."""
    seeds = [int(one[:8], 16) for one in ids]
    noise = np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]) if seeds else np.zeros((0, DIM))
    kinds = np.array([min(int(np.log2(1 + seed % 64)), 5) for seed in seeds], np.int64)
    return normalise((0.5 * noise + 3 * np.eye(6, DIM)[kinds]).astype(np.float32)) if seeds else np.zeros((0, DIM), np.float32)


def workspace(root: Path, **index: object) -> Workspace:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, index={**TINY, **index}))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with workspace(tmp_path_factory.mktemp("index")) as opened_workspace:  # type: ignore[attr-defined]
        yield opened_workspace


EMPTY = Content(ENCODER, DIM, (), names([]))


def snapshot_of(content: Content, ws: Workspace, parent: IndexSnapshot | None = None) -> IndexSnapshot:
    key = hashlib.sha256(repr([(ref.id) for ref in content.segments] + content.removed.tolist()).encode()).hexdigest()
    made = commit_snapshot(key, content, parent, manifests=("0" * 64,), embeddings=("1" * 64,), duplicates_id="2" * 64, ws=ws)
    assert ws.catalog.swap_head(ENCODER, made.id, parent.id if parent else "")
    return made


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sets(st.integers(0, 400), max_size=90)),
        st.tuples(st.just("remove"), st.sets(st.integers(0, 400), max_size=90)),
        st.tuples(st.just("compact"), st.booleans()),
    ),
    min_size=1, max_size=7,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=Steps)
def test_any_history_answers_as_a_fresh_build(steps: list[tuple[str, object]], ws: Workspace) -> None:
    content, there = EMPTY, set()
    for what, argument in steps:
        if what == "compact":
            index = opened(content, ws)
            config = ws.config.index
            for places in compaction(
                shapes_of(index), exact_rows=config.exact_rows, largest=config.segment_rows, per_tier=config.max_segments,
                most_dead=config.max_removed, everything=bool(argument),
            )[:1]:  # fmt: skip
                live = sum(shapes_of(index)[place].live for place in places)
                content = merged(content, index, places, names([]), None, ws, graphs=live > config.exact_rows)
        else:
            there = there | argument if what == "add" else there - argument  # type: ignore[operator]
            content = grown(content, np.sort(names(sorted(there))), vectors_of, ws)
        index = opened(content, ws, ef=64)
        assert index.elements == len(there)
        assert sorted(index.all_ids()[index.alive]) == sorted(names(sorted(there)))
    if not there:
        return
    queries = vectors_of(names(range(1000, 1020)))
    wanted = np.sort(names(sorted(there)))
    rows, distances = exact_knn(queries, vectors_of(wanted), 10)
    got, got_distances = index.search(queries, 10, exact=True)
    k = min(10, len(there))
    assert (index.ids(got[:, :k]) == wanted[rows]).all() and np.allclose(got_distances[:, :k], distances, atol=1e-6)
    assert (got[:, k:] == -1).all() and np.isinf(got_distances[:, k:]).all()
    fresh = opened(grown(EMPTY, wanted, vectors_of, ws), ws, ef=64)
    for one in (index, fresh):
        _, found = one.search(queries, 10, exact=False)
        certified = audit(one, ws.config.index).certificate
        assert recall_at_k(found[:, :k], distances).mean() >= min(0.9, certified.lower_bound - 0.05)


def test_removed_rows_are_in_no_answer_and_come_back_without_a_build(ws: Workspace) -> None:
    everything = np.sort(names(range(300)))
    content = grown(EMPTY, everything, vectors_of, ws)
    assert all(segment.has_graph for segment in opened(content, ws).segments)
    less = grown(content, everything[:250], vectors_of, ws)
    assert less.segments == content.segments and len(less.removed) == 50
    index = opened(less, ws, ef=100)
    for exact in (True, False):
        rows, _ = index.search(vectors_of(everything[250:]), 30, exact=exact)
        assert (rows >= 0).all() and not np.isin(index.ids(rows), everything[250:]).any()
    built = ws.tally["index.inserted"]
    again = grown(less, everything, vectors_of, ws)
    assert ws.tally["index.inserted"] == built and again == replace(content, removed=again.removed) and not len(again.removed)


def test_k_above_what_is_left_gives_all_of_it(ws: Workspace) -> None:
    index = opened(grown(grown(EMPTY, np.sort(names(range(300))), vectors_of, ws), np.sort(names(range(6))), vectors_of, ws), ws, ef=16)
    for exact in (True, False):
        rows, distances = index.search(vectors_of(names([1])), 50, exact=exact)
        assert (rows[0] >= 0).sum() == 6 == np.isfinite(distances[0]).sum()


@pytest.mark.parametrize("share", [0.01, 0.04, 0.1, 0.5, 0.97])
def test_a_filter_of_any_selectivity_gives_k(ws: Workspace, share: float) -> None:
    ids = np.sort(names(range(600)))
    index = opened(grown(EMPTY, ids, vectors_of, ws), ws, ef=64)
    allowed = np.random.default_rng(3).random(index.rows) < share
    queries = vectors_of(names(range(2000, 2030)))
    k = min(5, int(allowed.sum()))
    rows, distances = index.search(queries, 5, allowed=allowed, exact=False)
    _, truth = exact_knn(queries, index.vectors(np.flatnonzero(allowed)), 5)
    assert allowed[rows[:, :k]].all() and recall_at_k(distances[:, :k], truth).mean() > 0.95


def test_what_is_left_out_is_in_no_answer_and_does_not_cost_a_place(ws: Workspace) -> None:
    ids = np.sort(names(range(300)))
    index = opened(grown(EMPTY, ids, vectors_of, ws), ws, ef=64)
    own = np.arange(20)
    rows, _ = index.search(index.vectors(own), 10, without=own[:, None], exact=False)
    assert (rows >= 0).all() and not (rows == own[:, None]).any()
    rows, _ = index.search(index.vectors(own), 10, without=own)
    assert not np.isin(rows, own).any() and (rows >= 0).all()


def test_equal_distances_are_in_the_order_of_ids_through_all_segments(ws: Workspace) -> None:
    ids = np.sort(names(range(5000, 5030)))
    same = normalise(np.ones((1, DIM), np.float32))
    content = EMPTY
    for number in range(0, 30, 3):  # a tail of several segments
        content = grown(content, np.sort(ids[np.arange(30) % 10 <= number // 3]), lambda part: np.repeat(same, len(part), axis=0), ws)
    index = opened(content, ws)
    rows, distances = index.search(same, 30)
    assert index.ids(rows[0]).tolist() == ids.tolist() and np.allclose(distances, 0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_queries_that_are_none_are_refused(ws: Workspace, bad: float) -> None:
    index = opened(grown(EMPTY, np.sort(names(range(20))), vectors_of, ws), ws)
    with pytest.raises(InvalidInput, match="finite unit vectors"):
        index.search(np.full((1, DIM), bad, np.float32), 3)
    for queries, k in ((np.ones((1, DIM + 1), np.float32), 3), (np.ones((1, DIM)), 3), (np.ones(DIM, np.float32), 3), (np.ones((1, DIM), np.float32), 0)):
        with pytest.raises(InvalidInput, match=r"Expected k >= 1|float32|width 12"):
            index.search(queries, k)


def test_builds_in_threads_on_dask_and_twice_are_the_same_segments(tmp_path: Path) -> None:
    ids = np.sort(names(range(500)))
    found = []
    for name, scheduler in (("a", ""), ("b", "inline")):
        with workspace(tmp_path / name) as one:  # type: ignore[attr-defined]
            made = grown(EMPTY, ids, vectors_of, one)
            assert len(made.segments) == 5 and scheduler in ("", "inline")
            found.append([one.store.load_record(Segment, ref.id).files for ref in made.segments])  # type: ignore[union-attr]
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        config = Config(root=str(tmp_path / "c")).replace(dask={"scheduler": cluster.scheduler_address}, index=TINY)
        with open_workspace(config) as one:
            made = grown(EMPTY, ids, vectors_of, one)
            found.append([one.store.load_record(Segment, ref.id).files for ref in made.segments])  # type: ignore[union-attr]
    assert found[0] == found[1] == found[2]


def test_an_audit_compares_with_the_live_rows_alone(ws: Workspace) -> None:
    wanted = np.sort(names(range(100, 700)))
    index = opened(grown(grown(EMPTY, np.sort(names(range(700))), vectors_of, ws), wanted, vectors_of, ws), ws)
    assert any(dead and segment.has_graph for dead, segment in zip(index.dead, index.segments, strict=True))
    measured = audit(index, ws.config.index).measured.to_pylist()
    asked = sorted({row["asset_id"] for row in measured if row["ef"] == 0})
    own = id_array(asked)
    assert np.isin(own, wanted).all() and len(asked) > 400
    _, truth = exact_knn(vectors_of(own), vectors_of(wanted), 10, query_ids=asked, reference_ids=[one.decode() for one in wanted])
    for number, asset_id in enumerate(asked):
        found = sorted(d for row in measured if row["asset_id"] == asset_id and row["ef"] == 0 for d in row["distances"])[:10]
        assert np.allclose(found, truth[number], atol=1e-5)


def test_an_audit_measures_again_only_what_a_batch_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from discovery.stages.open_index import OpenIndex

    with workspace(tmp_path) as ws:  # type: ignore[attr-defined]
        first = grown(EMPTY, np.sort(names(range(900))), vectors_of, ws)
        known = audit(opened(first, ws), ws.config.index).measured
        second = grown(first, np.sort(names(range(910))), vectors_of, ws)
        asked: list[int] = []
        search = OpenIndex.search

        def counted(self: OpenIndex, queries: np.ndarray, *arguments: object, **options: object) -> object:
            if any(segment.has_graph for segment in self.segments):
                asked.append(len(queries))
            return search(self, queries, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(OpenIndex, "search", counted)
        again = audit(opened(second, ws), ws.config.index, known)
        repeated = sum(asked)
        asked.clear()
        anew = audit(opened(second, ws), ws.config.index)
        assert again.certificate == anew.certificate and again.measured.equals(anew.measured)
        assert 0 < repeated < 0.1 * sum(asked)


def test_a_snapshot_says_what_was_certified_and_an_audit_repeats_it(tmp_path: Path) -> None:
    with workspace(tmp_path) as ws:  # type: ignore[attr-defined]
        made = snapshot_of(grown(EMPTY, np.sort(names(range(700))), vectors_of, ws), ws)
        assert [one.name for one in made.strata] == ["rare", "middle", "common"]
        assert made.is_certified == (made.recall_lower_bound >= made.recall_target)
        assert made.recall_lower_bound == min(one.lower_bound for one in made.strata)
        assert sum(one.share for one in made.strata) == pytest.approx(1)
        snapshot, shown = audit_recall(ws)
        assert (snapshot.id, shown.lower_bound, shown.ef) == (made.id, made.recall_lower_bound, made.ef_search)
    with workspace(tmp_path, recall_target=1.0, audit_queries=100) as ws:  # type: ignore[attr-defined]
        snapshot, shown = audit_recall(ws)  # a sample never shows a recall of 1
        assert not shown.certified and not snapshot.is_certified and snapshot.recall_target == 1.0 and snapshot.parent_id == made.id
        assert current_snapshot(ws).id == snapshot.id and audit_recall(ws)[0].id == snapshot.id


def test_an_audit_under_the_target_fails_the_command_and_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("airflow")
    from airflow.sdk.exceptions import AirflowFailException

    from discovery.airflow import tasks
    from discovery.cli import main

    with workspace(tmp_path / "store") as ws:  # type: ignore[attr-defined]
        made = snapshot_of(grown(EMPTY, np.sort(names(range(700))), vectors_of, ws), ws)
    settings = tmp_path / "discovery.toml"
    kept = '[dask]\nscheduler = "inline"\n[index]\n' + "".join(f"{name} = {value}\n" for name, value in TINY.items() if name != "audit_queries")
    command = ["index", "--audit", "--root", str(tmp_path / "store"), "--config", str(settings), "--json"]
    monkeypatch.setenv("DISCOVERY_CONFIG", str(settings))
    monkeypatch.setenv("DISCOVERY_ROOT", str(tmp_path / "store"))
    settings.write_text(kept + "audit_queries = 400\n")  # all of each stratum
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["index_id"] == tasks.audit()["index_id"] != made.id  # the same content, certified otherwise
    capsys.readouterr()
    settings.write_text(kept + "audit_queries = 60\nrecall_target = 1.0\n")  # a sample never shows a recall of 1
    assert main(command) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["recall_target"] == 1.0 > answer["recall_lower_bound"] and not answer["certified"]
    assert [one["name"] for one in answer["strata"]] == ["rare", "middle", "common"]
    with pytest.raises(AirflowFailException, match=r"is certified only to 0\.[0-9]+ \(by its (rare|middle|common) pictures\), the target is 1\.0"):
        tasks.audit()


def test_a_reader_keeps_its_snapshot_while_it_is_swapped(tmp_path: Path) -> None:
    with workspace(tmp_path) as ws:  # type: ignore[attr-defined]
        content = grown(EMPTY, np.sort(names(range(300))), vectors_of, ws)
        snapshot = snapshot_of(content, ws)
        reader = open_index(snapshot, ws)
        queries = vectors_of(names(range(3000, 3010)))
        before = reader.ids(reader.search(queries, 10)[0])
        stop, wrong = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                wrong.extend([1] * int((reader.ids(reader.search(queries, 10)[0]) != before).any()))
                one = open_index(current_snapshot(ws), ws)
                rows, _ = one.search(queries, 10)
                if (rows < 0).any() or not one.alive[rows].all():
                    wrong.append(2)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for size in (320, 420, 410, 300):
            content = grown(content_of(snapshot, ENCODER, DIM, ws), np.sort(names(range(size))), vectors_of, ws)
            snapshot = snapshot_of(content, ws, snapshot)
            maintain(ws, compact=size == 410)
            snapshot = current_snapshot(ws)
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong and open_index(snapshot, ws).elements == 300


def test_maintaining_merges_what_is_worn_and_comes_to_rest(tmp_path: Path) -> None:
    with workspace(tmp_path) as ws:  # type: ignore[attr-defined]
        snapshot = snapshot_of(grown(EMPTY, np.sort(names(range(360))), vectors_of, ws), ws)
        snapshot = snapshot_of(grown(content_of(snapshot, ENCODER, DIM, ws), np.sort(names(range(200))), vectors_of, ws), ws, snapshot)
        assert snapshot.removed == 160 and snapshot.elements == 200
        made = maintain(ws)
        assert (made.removed, made.elements, made.parent_id) == (0, 200, snapshot.id) and current_snapshot(ws).id == made.id
        assert maintain(ws).id == made.id
        assert maintain(ws, compact=True).elements == 200 and maintain(ws, compact=True).id == current_snapshot(ws).id


def test_a_merge_that_lost_against_a_batch_is_left_aside(tmp_path: Path) -> None:
    with workspace(tmp_path) as ws:  # type: ignore[attr-defined]
        first = snapshot_of(grown(EMPTY, np.sort(names(range(30))), vectors_of, ws), ws)
        content = content_of(first, ENCODER, DIM, ws)
        second = snapshot_of(grown(content, np.sort(names(range(50))), vectors_of, ws), ws, first)
        succeed(first, content, "compacted", ws)
        assert current_snapshot(ws).id == second.id


@pytest.mark.parametrize("role", ["vectors", "segment"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_changed_file_is_refused_before_it_is_opened(tmp_path: Path, role: str, how: str) -> None:
    ids = np.sort(names(range(100)))
    with workspace(tmp_path) as ws:  # type: ignore[attr-defined]
        snapshot_of(grown(EMPTY, ids, vectors_of, ws), ws)
        open_index(current_snapshot(ws), ws).search(vectors_of(ids[:2]), 3, exact=False)  # its hash is remembered now
    file = next((tmp_path / "artifacts" / "segment").rglob(f"{role}-*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if how != "remove":
        file.write_bytes(data if how == "flip" else data[:-8])
    with workspace(tmp_path) as ws, pytest.raises(CorruptArtifact, match=r"was changed after it was written|is missing"):  # type: ignore[attr-defined]
        open_index(current_snapshot(ws), ws).search(vectors_of(ids[:2]), 3, exact=False)


def test_a_segment_of_another_encoder_is_refused(ws: Workspace) -> None:
    content = grown(EMPTY, np.sort(names(range(10))), vectors_of, ws)
    with pytest.raises(EncoderMismatch, match="not other"):
        opened(Content("other", DIM, content.segments, names([])), ws)


def test_a_graph_is_loaded_only_when_it_was_asked_often(tmp_path: Path) -> None:
    ids = np.sort(names(range(100)))
    with workspace(tmp_path, exact_queries=5) as ws:  # type: ignore[attr-defined]
        index = opened(grown(EMPTY, ids, vectors_of, ws), ws, ef=100)
        queries = vectors_of(names(range(2000, 2003)))
        first = index.search(queries, 10)
        assert not index.segments[0].is_loaded
        second = index.search(queries, 10)
        assert index.segments[0].is_loaded
        assert (first[0] == second[0]).all() and (first[1] == second[1]).all()  # and the distances are the very same


def test_many_queries_at_once_are_answered_as_each_by_itself(ws: Workspace) -> None:
    ids = names(range(900))
    content = grown(EMPTY, ids, vectors_of, ws)
    index = open_index(snapshot_of(content, ws), ws)
    assert any(segment.has_graph for segment in index.segments)
    rows = np.arange(700)
    queries, allowed = index.vectors(rows), np.arange(index.rows) % 3 > 0
    at_once = index.search(queries, 7, allowed=allowed, without=rows[:, None], ef=30, exact=False)
    for start in range(0, 700, 100):
        part = slice(start, start + 100)
        by_parts = index.search(queries[part], 7, allowed=allowed, without=rows[part, None], ef=30, exact=False)
        assert (at_once[0][part] == by_parts[0]).all()
        assert (at_once[1][part] == by_parts[1]).all()
