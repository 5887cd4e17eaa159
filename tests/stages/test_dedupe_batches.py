"""Duplicates in a store: a second batch compares only what is new, settings that decide copies compare all again; calibration, labels."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from discovery.adapters.planted import planted
from discovery.cli import main
from discovery.config import Config
from discovery.core import duplicate_calibration
from discovery.errors import InvalidInput
from discovery.pipeline import run_pipeline
from discovery.stages import calibrate as calibration
from discovery.stages import copies
from discovery.stages.asset_table import asset_table
from discovery.stages.calibrate import calibrate
from discovery.stages.check import check
from discovery.stages.dedupe import dedupe, proposer_for
from discovery.stages.embed import embed
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.stages.label_pairs import pairs_to_label, read_labels
from discovery.types import DuplicateReport, EmbeddingSet, Manifest
from discovery.workspace import Workspace, open_workspace
from tests.core.pictures import scene

SCENES, NEW = 8, ("crop", "grey", "turn")


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Eight scenes, of the first four a smaller copy; and a folder with these and three other copies of each of the first four."""
    first, both = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("both")
    for seed in range(SCENES):
        image = scene(seed, 240, 180)
        names = ("resize", *NEW) if seed < 4 else ()
        for folder in (first, both):
            image.save(folder / f"{seed}.png")
        for name in names:
            data = planted(image, name, np.random.default_rng(seed))
            for folder in (both,) if name in NEW else (first, both):
                (folder / f"{seed}-{name}.png").write_bytes(data)
    return first, both


def config(root: Path, **dedupe_settings: float) -> Config:
    return Config(root=str(root)).replace(dask={"scheduler": "inline"}, dedupe=dedupe_settings)


def newest(ws: Workspace) -> tuple[Manifest, EmbeddingSet, DuplicateReport]:
    manifest, embeddings = (ws.catalog.records(stage, 1)[0] for stage in ("ingest", "embed"))
    assert isinstance(manifest, Manifest) and isinstance(embeddings, EmbeddingSet)
    return manifest, embeddings, dedupe(manifest, embeddings, ws)


def tables(ws: Workspace) -> tuple[pa.Table, pa.Table]:
    report = newest(ws)[2]
    return ws.store.read_table(report), ws.store.read_table(report, "pairs")


@pytest.fixture(scope="module")
def in_two(batches: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A store that got the pictures in two batches."""
    with open_workspace(config(tmp_path_factory.mktemp("two"))) as ws:
        for folder in batches:
            run_pipeline([str(folder)], ws, curate_default=False)
        yield ws


def test_two_batches_give_what_one_gives_and_compare_only_what_is_new(
    batches: tuple[Path, Path], in_two: Workspace, tmp_path: Path
) -> None:
    with open_workspace(config(tmp_path)) as ws:
        run_pipeline([str(batches[1])], ws, curate_default=False)
        table, pairs = tables(ws)
        assert ws.tally["dedupe.compared_assets"] == SCENES + 4 * (1 + len(NEW))
    two, two_pairs = tables(in_two)
    assert two_pairs.equals(pairs)
    same = [name for name in table.column_names if name not in ("group_id", "source_rows")]  # the second source lists files again
    assert two.select(same).equals(table.select(same))
    assert in_two.tally["dedupe.compared_assets"] == (SCENES + 4) + 4 * len(NEW)
    assert set(pairs["relation"].to_pylist()) == {"resized", "cropped", "recoloured", "turned"}


def test_groups_of_the_first_batch_keep_their_ids(in_two: Workspace) -> None:
    first = next(record for record in in_two.catalog.records("dedupe") if isinstance(record, DuplicateReport) and record.assets < newest(in_two)[2].assets)
    older, newer = in_two.store.read_table(first), tables(in_two)[0]
    now = {row["asset_id"]: row["group_id"] for row in newer.to_pylist()}
    assert len(older) == SCENES + 4 and all(now[row["asset_id"]] == row["group_id"] for row in older.to_pylist())


def test_batches_that_ran_beside_each_other_are_compared_before_the_second_is_indexed(batches: tuple[Path, Path], tmp_path: Path) -> None:
    for name, source in (("small", "*-resize.png"), ("large", "?.png")):
        (tmp_path / name).mkdir()
        for file in batches[0].glob(source):
            shutil.copy(file, tmp_path / name)
    with open_workspace(config(tmp_path / "root"), map_shards=map) as ws:
        ready = []
        for name in ("small", "large"):
            manifest = ingest([str(tmp_path / name)], ws)
            embeddings = embed(manifest, check(manifest, ws), ws)
            ready.append((manifest, embeddings, dedupe(manifest, embeddings, ws)))  # neither knows the other
        snapshots = [index(*one, ws) for one in ready]
        report = ws.store.load_record(DuplicateReport, snapshots[-1].duplicates_id)
        assert report is not None and report.id != ready[1][2].id and (report.assets, report.near_groups) == (12, 4)
        table = asset_table(snapshots[-1], ws, [])
        assert len(table) == 12 and not table["group_id"].null_count and not table["component_id"].null_count
        again = dedupe(*ready[1][:2], ws)
        assert again.id == report.id and index(*ready[1][:2], again, ws) == snapshots[-1]  # run again, it is what it was


def test_what_decides_copies_compares_all_again(in_two: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, embeddings, report = newest(in_two)
    stricter = in_two.config.replace(dedupe={"max_difference": 0.0001})
    with open_workspace(stricter) as ws:
        other = dedupe(manifest, embeddings, ws)
        assert (other.id, other.method) != (report.id, report.method)
        assert ws.tally["dedupe.compared_assets"] == report.assets and other.pairs < report.pairs
        monkeypatch.setattr(copies, "align", lambda a, b: pytest.fail("a pair was compared again"))
        assert dedupe(manifest, embeddings, ws) == other


def test_pairs_are_written_to_be_labelled_and_labels_are_read(in_two: Workspace) -> None:
    manifest, embeddings, report = newest(in_two)
    text = pairs_to_label(manifest, embeddings, in_two)
    assert text == pairs_to_label(manifest, embeddings, in_two)
    rows = list(csv.DictReader(io.StringIO(text)))
    linked = {(row["asset_a"], row["asset_b"]) for row in tables(in_two)[1].to_pylist()}
    assert {(row["asset_a"], row["asset_b"]) for row in rows if float(row["difference"]) <= 0.04} == linked
    assert all(row["source_a"].endswith(".png") and not row["same"] for row in rows)

    def labelled(mark: dict[bool, str]) -> str:
        sink = io.StringIO()
        writer = csv.DictWriter(sink, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "same": mark[(row["asset_a"], row["asset_b"]) in linked]})
        return sink.getvalue()

    different = {"same": "no", "asset_a": "x", "asset_b": "y", "difference": "0.6", "weight": "1"}
    more = labelled({True: "yes", False: "no"}) + ",".join(different.get(name, "") for name in rows[0]) + "\n"
    found = read_labels(more, in_two)
    assert found.same == report.pairs and found.blank == 0
    assert (found.configured.precision, found.configured.recall) == (1.0, 1.0)
    assert found.configured.precision_lower_bound == pytest.approx(0.05 ** (1 / report.pairs), abs=1e-6)  # all of n right
    assert found.best.precision == 1.0 and found.best.value <= 0.04
    with pytest.raises(InvalidInput, match="Line 2: same is 'perhaps'"):
        read_labels(labelled({True: "perhaps", False: "perhaps"}), in_two)
    with pytest.raises(InvalidInput, match="both kinds"):
        read_labels(labelled({True: "yes", False: "yes"}), in_two)
    with pytest.raises(InvalidInput, match="lack the columns difference, weight"):
        read_labels("same\n1\n", in_two)


def test_the_command_writes_and_reads_pairs(
    in_two: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    file = tmp_path / "pairs.csv"
    assert main(["dedupe", "--label-pairs", str(file), "--root", in_two.config.root, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert answer == {"file": str(file), "pairs": len(rows)}
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *(f"{number % 2}{line}" for number, line in enumerate(lines[1:]))]) + "\n")
    assert main(["dedupe", "--labelled", str(file), "--root", in_two.config.root, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["pairs"] == len(rows) and set(answer["best"]) == {
        "value", "precision", "precision_lower_bound", "recall", "recall_lower_bound",
    }  # fmt: skip
    assert main(["dedupe", "--labelled", str(tmp_path / "none.csv"), "--root", in_two.config.root]) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err


def test_a_calibration_is_made_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "BASES", 6)
    monkeypatch.setattr(duplicate_calibration, "LEAST_ROWS", 60)  # what it takes is quadratic in the pictures, and these are all alike
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(64):
        scene(seed, 128, 96).save(folder / f"{seed}.png")
    with open_workspace(config(tmp_path / "root")) as ws:
        run_pipeline([str(folder)], ws, curate_default=False)
        before = newest(ws)[2]
        packaged = proposer_for(before.encoder_id, ws)
        assert before.calibration == packaged.id != "" and packaged.projection is not None  # of the default encoder
        made = calibrate(ws)
        assert calibrate(ws) == made and made.bases == 6
        assert 6 <= made.copies <= 60 and made.recall_lower_bound <= made.recall <= 1 and made.dim == 16  # 64 // 4
        used = proposer_for(made.encoder_id, ws)
        assert (used.id, used.threshold) == (made.id, made.threshold)
        manifest, embeddings, _ = newest(ws)
        after = dedupe(manifest, embeddings, ws)
        assert after.calibration == made.id and after.method != before.method
        assert proposer_for("another@encoder", ws).projection is None


def test_a_small_library_is_told_that_it_cannot_be_calibrated_on(in_two: Workspace) -> None:
    with pytest.raises(InvalidInput, match="needs 200 pictures"):
        calibrate(in_two)
