"""What people mark is kept with who and when, and changes the next reference: expected comes in, novel and junk stay out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.errors import ConfigError, InvalidInput, UnknownRecord
from discovery.pipeline import RunResult, run_pipeline
from discovery.spec import parse_spec
from discovery.stages.find_asset import find_asset
from discovery.stages.marks import mark, said_of, standing_marks
from discovery.stages.novelty_reference import reference_of
from discovery.stages.reindex import reindex
from discovery.stages.score import score, top_novel, top_rare
from discovery.stages.search import search
from discovery.types import DatasetVersion, NoveltyReport, QualityReport
from discovery.workspace import Workspace
from tests.stages.test_chain_laws import drawing, texture, workspace

NOVELTY = {"fdr": 0.2, "min_calibration_rows": 20}


@dataclass
class Shop:
    ws: Workspace
    folder: Path
    first: RunResult  # 64 textures
    second: RunResult  # 8 drawings, 12 textures

    def score(self, reference: str = "", ws: Workspace | None = None) -> NoveltyReport:
        records = self.second.records
        return score(*(records[stage] for stage in ("ingest", "embed", "dedupe")), ws or self.ws, reference)  # type: ignore[arg-type]

    def asset(self, name: str) -> str:
        rows = [row for run in (self.first, self.second) for row in self.ws.store.read_table(run.records["ingest"]).to_pylist()]
        return next(str(row["asset_id"]) for row in rows if str(row["source_uri"]).endswith(name))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("marks")
    rng = np.random.default_rng(21)
    for batch, kind, count in (("one", texture, 64), ("two/lines", drawing, 8), ("two/usual", texture, 12)):
        (folder / batch).mkdir(parents=True)
        for number in range(count):
            kind(rng).save(folder / batch / f"{batch.replace('/', '-')}-{number:03}.png")
    spec = parse_spec("name: held\nbudget: 16\nsplits: {train: 1.0}\n")
    with workspace(folder / "store", novelty=NOVELTY) as ws:
        first = run_pipeline([str(folder / "one")], ws, spec=spec)
        yield Shop(ws, folder, first, run_pipeline([str(folder / "two")], ws))


def test_a_batch_is_scored_beside_its_like_and_a_named_reference_one_by_one(shop: Shop) -> None:
    report = shop.second.records["score"]
    assert isinstance(report, NoveltyReport)
    assert (report.score, report.guarantee) == ("adaptive", "batch")
    named = shop.score("held@1")
    assert (named.score, named.guarantee) == ("knn", "set")
    wanted = replace(shop.ws, config=shop.ws.config.replace(novelty={"score": "adaptive"}))
    asked = shop.score("held@1", wanted)
    assert (asked.score, asked.guarantee) in {("adaptive", "batch"), ("knn", "batch")}
    with pytest.raises(ConfigError, match="cannot hold for one set"):
        shop.ws.config.replace(novelty={"score": "adaptive", "guarantee": "set"})


def test_a_batch_from_one_event_is_scored_one_by_one_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(31)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for number in range(100):
        texture(rng).save(tmp_path / "one" / f"{number:03}.png")
    place = texture(rng)
    for number in range(40):
        Image.blend(place, texture(rng), 0.45).save(tmp_path / "two" / f"{number:03}.png")
    with workspace(tmp_path / "store", novelty={"min_calibration_rows": 20}) as ws:
        run_pipeline([str(tmp_path / "one")], ws, curate_default=False)
        report = run_pipeline([str(tmp_path / "two")], ws, curate_default=False).records["score"]
    assert isinstance(report, NoveltyReport)
    assert (report.score, report.shifted, report.novel, report.candidates) == ("knn", False, 0, 40)
    assert "as in bursts or at one event" in report.note


def test_discoveries_are_explained_and_in_themes_with_their_words(shop: Shop) -> None:
    report = shop.second.records["score"]
    assert isinstance(report, NoveltyReport)
    assert (report.candidates, report.references, report.calibration_rows) == (20, 64, 32)
    assert report.novel >= 8 and not report.shifted and report.reference == "everything known before this run"
    rows = shop.ws.store.read_table(report).to_pylist()
    lines = {shop.asset(f"two-lines-{number:03}.png") for number in range(8)}
    assert lines <= {row["asset_id"] for row in rows if row["is_novel"]}
    for row in rows:
        assert len(row["nearest"]) == 5 and row["nearest_distance"] == sorted(row["nearest_distance"])
        assert row["p_value"] == pytest.approx(1 - row["percentile"] / 100 * 32 / 33, abs=1e-6)
        assert (row["theme"] is not None) == row["is_novel"] and not (row["is_novel"] and row["is_rare"])
    themes = shop.ws.store.read_table(report, "themes").to_pylist()
    assert sum(theme["assets"] for theme in themes) == report.novel and len(themes) == report.themes
    assert themes[0]["assets"] == 8 and themes[0]["words"] == ["lines"] and themes[0]["word_assets"] == [8] and themes[0]["exemplar"] in lines
    assert len(top_rare(report, shop.ws)) == min(10, report.rare)


def test_a_reference_is_any_set_and_a_named_one_has_the_stricter_guarantee(shop: Shop) -> None:
    source, expression, version = (shop.score(text) for text in (f"source:{shop.folder / 'one'}", "where:width_px > 10", "held@1"))
    assert (source.references, expression.references, version.references) == (64, 64, 16)
    assert {source.guarantee, expression.guarantee, version.guarantee} == {"set"} and shop.second.records["score"].guarantee == "batch"  # type: ignore[attr-defined]
    assert source.reference == str(shop.folder / "one") and version.reference == "held@1" and len({source.id, expression.id, version.id}) == 3
    assert source.least_p == pytest.approx(1 - 0.1 ** (1 / 16))  # Simes' bound of 32 rows, k = 16
    assert "Only 8 calibration rows" in version.note and version.novel == 0 and top_novel(version, shop.ws, 3)


def test_what_the_reference_has_is_no_candidate(shop: Shop) -> None:
    """A self-match would have novelty 0, and in the calibration it would make everything novel."""
    records = shop.first.records
    report = score(*(records[stage] for stage in ("ingest", "embed", "dedupe")), shop.ws, "held@1")  # type: ignore[arg-type]
    assert report.known == 16 and report.candidates == 48
    assert "16 assets of this batch are in the reference itself" in report.note


def test_the_index_and_exact_search_agree(shop: Shop) -> None:
    for way in ("exact", "index"):
        ws = replace(shop.ws, config=shop.ws.config.replace(novelty={**NOVELTY, "search": way}))
        found = [(row["asset_id"], row["p_value"]) for row in top_novel(shop.score(ws=ws), ws, 40)]
        assert found == [(row["asset_id"], row["p_value"]) for row in top_novel(shop.score(), shop.ws, 40)]


def test_a_mark_is_kept_with_who_and_when_and_can_be_taken_back(shop: Shop) -> None:
    asset = shop.asset("one-005.png")
    (first,) = mark([asset], "novel", "ana", shop.ws, comment="the first of these")
    assert mark([asset], "novel", "ana", shop.ws, comment="the first of these") == [first]
    mark([asset], "expected", "ben", shop.ws)
    assert standing_marks(shop.ws.catalog)[asset].by == "ben"
    mark([asset], "none", "ana", shop.ws)
    assert asset not in standing_marks(shop.ws.catalog)
    assert sorted((one.mark, one.by) for one in said_of(asset, shop.ws.catalog)) == [("expected", "ben"), ("none", "ana"), ("novel", "ana")]


def test_marks_are_in_the_store_and_survive_the_catalog(shop: Shop) -> None:
    asset = shop.asset("one-006.png")
    mark([asset], "junk", "ana", shop.ws)
    before = standing_marks(shop.ws.catalog)
    reindex(shop.ws)
    assert standing_marks(shop.ws.catalog) == before and before[asset].mark == "junk"
    mark([asset], "none", "ana", shop.ws)


@pytest.mark.parametrize(("assets", "what", "by", "error"), [(["a" * 64], "odd", "x", ConfigError), (["a" * 64], "junk", " ", InvalidInput), (["abc"], "junk", "x", InvalidInput)])
def test_what_is_no_mark_is_refused(shop: Shop, assets: list[str], what: str, by: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        mark(assets, what, by, shop.ws)


def test_an_asset_is_found_by_its_first_digits(shop: Shop) -> None:
    asset = shop.asset("one-007.png")
    assert find_asset(asset[:12], shop.ws) == find_asset(asset, shop.ws) == asset
    for text in ("0" * 64, "zzzz", "ab"):
        with pytest.raises(UnknownRecord):
            find_asset(text, shop.ws)


def test_novel_and_junk_leave_the_reference_and_expected_comes_in(shop: Shop) -> None:
    plain, ids = shop.score("held@1"), [row for row in shop.ws.store.read_table(shop.first.records["curate"])["asset_id"].to_pylist()]
    assert isinstance(shop.first.records["curate"], DatasetVersion)
    outside = next(one for number in range(64) if (one := shop.asset(f"one-{number:03}.png")) not in ids)
    later = shop.asset("two-usual-003.png")  # of the batch itself: never in its own reference
    marks = mark(ids[:2], "junk", "ana", shop.ws) + mark(ids[2:3], "novel", "ana", shop.ws) + mark([outside, later], "expected", "ana", shop.ws)
    report = shop.score("held@1")
    assert report.references == 16 - 3 + 1 and report.id != plain.id
    assert {one.id for one in marks[:4]} <= set(report.inputs) and marks[4].id not in report.inputs
    mark([one.asset_id for one in marks], "none", "ana", shop.ws)
    assert shop.score("held@1") == plain


def test_a_mark_that_touches_no_reference_changes_no_key(shop: Shop) -> None:
    before = shop.score()
    later = mark([shop.asset("two-lines-002.png")], "novel", "ana", shop.ws)
    assert shop.score() == before
    mark([later[0].asset_id], "none", "ana", shop.ws)


def test_without_anything_known_there_is_no_reference(tmp_path: Path, shop: Shop) -> None:
    with workspace(tmp_path / "store") as ws:
        manifest = shop.first.records["ingest"]
        assert reference_of("", manifest, "some@encoder", ws) is None  # type: ignore[arg-type]
        assert reference_of("where:width_px > 1", manifest, "some@encoder", ws) is None  # type: ignore[arg-type]


def test_a_batch_that_is_darker_as_a_whole_is_shifted_and_says_so(shop: Shop) -> None:
    from PIL import Image

    rng = np.random.default_rng(5)
    (shop.folder / "dark").mkdir()
    for number in range(40):
        texture(rng).point(lambda value: value // 8).save(shop.folder / "dark" / f"{number:03}.png")
    shutil.copy(shop.folder / "one" / "one-000.png", shop.folder / "dark" / "known.png")
    assert Image.open(shop.folder / "dark" / "000.png").getextrema()[0][1] < 40
    report = run_pipeline([str(shop.folder / "dark")], shop.ws).records["score"]
    assert isinstance(report, NoveltyReport) and report.candidates == 40
    assert report.shifted and report.novel == 0 == report.rare and report.null_fraction < 0.5
    assert any(word.startswith("darker (brightness") for word in report.moved) and "darker" in report.note


def test_junk_is_quarantined_by_the_next_check_and_leaves_the_index(shop: Shop) -> None:
    asset = shop.asset("one-010.png")
    assert find_asset(asset, shop.ws) == asset and search(shop.ws, like=[asset], k=1).results
    (said,) = mark([asset], "junk", "ana", shop.ws)
    texture(np.random.default_rng(77)).save(shop.folder / "one" / "later.png")
    again = run_pipeline([str(shop.folder / "one")], shop.ws)
    report = again.records["check"]
    assert isinstance(report, QualityReport) and report.quarantined == 1 and said.id in report.inputs and report.passed
    (row,) = [row for row in shop.ws.store.read_table(report).to_pylist() if row["is_quarantined"]]
    assert row["asset_id"] == asset and "not_marked_junk" in row["failed"]
    assert asset not in {one.asset_id for one in search(shop.ws, like=[shop.asset("one-011.png")], k=100).results}
    mark([asset], "none", "ana", shop.ws)
