"""The whole chain on generated pictures with known copies and broken files: the counts, and the laws of DESIGN section 3."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.config import Config
from discovery.errors import CorruptArtifact, InvalidInput, SourceNotFound, SpecError, UnknownRecord
from discovery.pipeline import RunResult, run_pipeline
from discovery.spec import parse_spec
from discovery.stages.check import check
from discovery.stages.curate import curate, leaked_members, preview
from discovery.stages.dedupe import duplicate_groups
from discovery.stages.ingest import ingest
from discovery.stages.maintain import maintain
from discovery.stages.query import Box
from discovery.stages.score import score, top_novel
from discovery.stages.search import search
from discovery.stages.sweep import sweep
from discovery.stages.verify import verify
from discovery.workspace import Workspace, open_workspace

DISTINCT, COPIES, NEAR, BROKEN, BLANK = 60, 3, 3, 2, 1
SPEC = parse_spec("name: some\nbudget: 20\nsplits: {train: 0.5, test: 0.5}\n")


def texture(rng: np.random.Generator) -> Image.Image:
    """A smooth random picture; two of them share nothing."""
    coarse = rng.integers(0, 256, (int(rng.integers(3, 10)), int(rng.integers(3, 10)), 3), np.uint8)
    return Image.fromarray(coarse).resize((200, 150), Image.Resampling.BICUBIC)


def drawing(rng: np.random.Generator) -> Image.Image:
    """Fine black and white noise: unlike any texture."""
    return Image.fromarray(rng.integers(0, 2, (150, 200), np.uint8) * 255).convert("RGB")


def make_source(folder: Path) -> Path:
    rng = np.random.default_rng(11)
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    for number in range(DISTINCT):
        texture(rng).save(folder / "ab"[number % 2] / f"{number:02d}.jpg", quality=90)
    for number in range(COPIES):
        shutil.copy(folder / "a" / f"{2 * number:02d}.jpg", folder / "b" / f"copy-{number}.jpg")
    for number in range(NEAR):
        with Image.open(folder / "a" / f"{20 + 2 * number:02d}.jpg") as original:
            original.resize((150, 112)).save(folder / "b" / f"near-{number}.jpg", quality=70)
    (folder / "broken.jpg").write_bytes((folder / "a" / "00.jpg").read_bytes()[:900])
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (80, 80), (10, 200, 30)).save(folder / "blank.png")
    return folder


def workspace(root: Path, **sections: dict[str, object]) -> AbstractContextManager[Workspace]:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline", **sections.pop("dask", {})}, **sections))


@dataclass(frozen=True)
class Chain:
    ws: Workspace
    source: Path
    result: RunResult


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    source = make_source(tmp_path_factory.mktemp("some pictures") / "photos")
    with workspace(tmp_path_factory.mktemp("root") / "store") as ws:
        yield Chain(ws, source, run_pipeline([str(source)], ws, spec=SPEC))


def test_every_listed_row_is_an_asset_or_a_rejection_with_a_reason(chain: Chain) -> None:
    manifest = chain.result.records["ingest"]
    rows = chain.ws.store.read_table(manifest).to_pylist()
    assert len(rows) == DISTINCT + COPIES + NEAR + BROKEN + BLANK
    assert all(bool(row["asset_id"]) != bool(row["reason"]) for row in rows)
    assert manifest.assets == DISTINCT + NEAR + BLANK  # a copy is the same asset
    assert manifest.rejections == {"empty": 1, "truncated": 1}


def test_the_blank_picture_is_quarantined_and_goes_no_further(chain: Chain) -> None:
    assert chain.result.records["check"].quarantined == BLANK
    assert chain.result.records["embed"].assets == DISTINCT + NEAR


def test_planted_copies_are_the_groups(chain: Chain) -> None:
    report = chain.result.records["dedupe"]
    assert (report.exact_groups, report.near_groups) == (COPIES, NEAR)
    groups = duplicate_groups(report, chain.ws)
    assert [len(group) for group in groups] == [2] * NEAR
    rows = {row["asset_id"]: row for row in chain.ws.store.read_table(report).to_pylist()}
    assert all(rows[keeper]["relation"] == "keeper" and rows[other]["relation"] == "resized" for keeper, other in groups)
    assert all(rows[keeper]["kept_because"] == "most pixels (200 x 150)" for keeper, _ in groups)
    assert {rows[other]["transformation"] for _, other in groups} == {"200 x 150 to 150 x 112"}
    pairs = chain.ws.store.read_table(report, "pairs")
    assert len(pairs) == report.pairs == NEAR and max(pairs["difference"].to_pylist()) < 0.02


def test_the_first_run_has_no_reference_and_says_so(chain: Chain) -> None:
    report = chain.result.records["score"]
    assert (report.reference_id, report.novel) == ("", 0)
    assert "no reference" in report.note


def test_the_index_reaches_its_recall_target(chain: Chain) -> None:
    snapshot = chain.result.records["index"]
    assert snapshot.elements == DISTINCT + NEAR
    assert 0 < snapshot.recall_lower_bound <= snapshot.recall_at_10 <= 1


def test_no_split_shares_a_duplicate_component_with_another(chain: Chain) -> None:
    version = chain.result.records["curate"]
    members = chain.ws.store.read_table(version)
    assert version.assets == 20 and version.leaked == leaked_members(members) == 0
    assert sorted(version.splits.values()) == [10, 10]


def test_members_passed_the_quality_report_they_name(chain: Chain) -> None:
    for row in chain.ws.store.read_table(chain.result.records["curate"]).to_pylist():
        report = chain.ws.catalog.get_record(row["report_id"])
        verdict = {r["asset_id"]: r["is_quarantined"] for r in chain.ws.store.read_table(report).to_pylist()}
        assert verdict[row["asset_id"]] is False


def test_duplicates_are_kept_when_the_spec_says_so(chain: Chain) -> None:
    everything = parse_spec("name: all\nbudget: 1000\nduplicates: keep\nsplits: {train: 0.5, test: 0.5}\n")
    version, _ = preview(everything, chain.ws)
    assert version.assets == DISTINCT + NEAR
    assert version.leaked == 0  # copies of one picture are on one side


def test_running_again_reads_and_computes_nothing(chain: Chain) -> None:
    before = Counter(chain.ws.tally)
    again = run_pipeline([str(chain.source)], chain.ws, spec=SPEC)
    assert {name: record.id for name, record in again.records.items()} == {n: r.id for n, r in chain.result.records.items()}
    assert again.published == chain.result.published and again.mlflow_run_id == chain.result.mlflow_run_id
    grown = Counter(chain.ws.tally) - before
    assert set(grown) == {"ingest.unchanged", "embed_shard.reused"}


def test_a_run_with_nothing_to_embed_does_not_load_the_encoder(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.stages.known_encoder.load_encoder", lambda *arguments: pytest.fail("the encoder was loaded"))
    assert run_pipeline([str(chain.source)], chain.ws, spec=SPEC).published == chain.result.published


def test_the_digest_does_not_depend_on_place_shards_or_store(chain: Chain, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(chain.source, moved)
    with workspace(tmp_path / "other", dask={"shard_assets": 7}) as ws:
        other = run_pipeline([str(moved)], ws, spec=SPEC)
    assert other.published and chain.result.published
    assert other.published.digest == chain.result.published.digest


def test_verify_is_clean_and_notices_a_changed_byte_and_a_missing_file(chain: Chain, tmp_path: Path) -> None:
    assert verify(chain.ws).corrupt == verify(chain.ws).missing == []
    copy = tmp_path / "copy"
    shutil.copytree(Path(chain.ws.config.root), copy)
    with workspace(copy) as ws:
        asset = next(path for path in sorted((copy / "assets").rglob("*")) if path.is_file())
        asset.write_bytes(asset.read_bytes() + b"x")
        segment = next((copy / "artifacts" / "segment").rglob("vectors-*.arrow"))
        segment.unlink()
        result = verify(ws)
        assert result.corrupt == [asset.relative_to(copy).as_posix()]
        assert result.missing == [segment.relative_to(copy).as_posix()]
        with pytest.raises(CorruptArtifact, match="missing though its record names it"):
            search(ws, like=[chain.ws.store.read_table(chain.result.records["curate"])["asset_id"][0].as_py()])


def test_sweep_removes_only_what_no_record_names_and_only_when_it_is_old(chain: Chain) -> None:
    orphan = Path(chain.ws.config.root) / "artifacts" / "embed" / ("0" * 64) / "members-x.parquet"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"left by a killed run")
    assert sweep(chain.ws).removed == 0
    assert sweep(chain.ws, age_s=-1, dry_run=True).removed == 1 and orphan.exists()
    assert sweep(chain.ws, age_s=-1).removed == 1 and not orphan.exists()
    assert verify(chain.ws).missing == []


def test_a_picture_finds_its_near_copies(chain: Chain) -> None:
    groups = duplicate_groups(chain.result.records["dedupe"], chain.ws)
    assert len(groups) == NEAR
    for keeper, other in groups:
        answer = search(chain.ws, like=[keeper], k=5)  # of 90 pictures; all of them are smooth, and some as near as a worse copy
        assert other in [r.asset_id for r in answer.results]
        assert [r.distance for r in answer.results] == sorted(r.distance for r in answer.results)
    by_file = search(chain.ws, images=[chain.source / "b" / "near-0.jpg"], k=1)
    assert by_file.results[0].distance == pytest.approx(0, abs=1e-3)


def test_a_part_of_a_picture_is_searched_by(chain: Chain, tmp_path: Path) -> None:
    a, b = chain.source / "a" / "02.jpg", chain.source / "b" / "03.jpg"
    with Image.open(a) as left, Image.open(b) as right:
        both = Image.new("RGB", (400, 150))
        both.paste(left, (0, 0))
        both.paste(right, (200, 0))
    both.save(tmp_path / "both.png")
    for box, wanted in ((Box(0, 0, 200, 150), a), (Box(200, 0, 200, 150), b)):
        nearest = search(chain.ws, images=[tmp_path / "both.png"], box=box, k=1).results[0]
        assert nearest.source_uri.endswith(wanted.name) and nearest.distance == pytest.approx(0, abs=2e-3)
    asset_id = nearest.asset_id
    everything = search(chain.ws, like=[asset_id], box=Box(0, 0, 200, 150), k=5)
    assert [r.asset_id for r in everything.results] == [r.asset_id for r in search(chain.ws, like=[asset_id], k=5).results]
    assert asset_id not in [r.asset_id for r in search(chain.ws, like=[asset_id], box=Box(50, 50, 60, 60), k=5).results]


def test_a_box_must_lie_within_one_picture(chain: Chain) -> None:
    some = chain.ws.store.read_table(chain.result.records["curate"])["asset_id"].to_pylist()[:2]
    with pytest.raises(InvalidInput, match="outside of the picture, which has"):
        search(chain.ws, like=some[:1], box=Box(100, 100, 5000, 10))
    for examples in ({"like": some}, {"like": some[:1], "texts": ["snow"]}, {"like": some[:1], "images": [chain.source / "a" / "02.jpg"]}):
        with pytest.raises(InvalidInput, match="A box is a part of one picture"):
            search(chain.ws, box=Box(0, 0, 10, 10), **examples)
    for text in ("1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,0,5", ""):
        with pytest.raises(InvalidInput, match=r"A box (is x,y,w,h|has its corner)"):
            Box.parse(text)


def test_a_filtered_search_returns_only_what_passes(chain: Chain) -> None:
    some = chain.ws.store.read_table(chain.result.records["curate"])["asset_id"][0].as_py()
    narrow = search(chain.ws, like=[some], k=50, where="width_px < 200")
    assert len(narrow.results) >= NEAR - 1
    assert all("near-" in result.source_uri for result in narrow.results)


# from here on the store grows


def test_a_second_batch_reads_only_what_is_new_and_its_strangers_are_novel(chain: Chain) -> None:
    rng = np.random.default_rng(12)
    for number in range(30):
        texture(rng).save(chain.source / "a" / f"later-{number}.jpg", quality=90)
    for number in range(8):
        drawing(rng).save(chain.source / "b" / f"drawing-{number}.png")
    before = Counter(chain.ws.tally)
    result = run_pipeline([str(chain.source)], chain.ws, spec=SPEC)
    grown = Counter(chain.ws.tally) - before
    assert grown["ingest.objects_read"] == grown["ingest.new_assets"] == grown["embed_shard.computed"] == 38
    report = result.records["score"]
    assert report.reference_id == chain.result.records["index"].id and report.candidates == 38 and not report.shifted
    uris = {row["asset_id"]: row["source_uri"] for row in chain.ws.store.read_table(result.records["ingest"]).to_pylist()}
    top = top_novel(report, chain.ws, 8)
    assert all("drawing-" in uris[str(row["asset_id"])] for row in top)
    assert result.published and result.published.number == 2
    for view in ("mahalanobis", "density", "combined"):
        ws = replace(chain.ws, config=chain.ws.config.replace(novelty={"score": view}))
        other = score(*(result.records[stage] for stage in ("ingest", "embed", "dedupe")), ws)  # type: ignore[arg-type]
        assert (other.score, other.candidates, other.reference_id) == (view, 38, report.reference_id) and other.id != report.id
        found = top_novel(other, ws, 8)
        assert sum("drawing-" in uris[str(row["asset_id"])] for row in found) >= 7, view


def test_the_first_manifest_still_gives_the_first_results(chain: Chain) -> None:
    report = check(chain.result.records["ingest"], chain.ws)  # type: ignore[arg-type]
    assert report == chain.result.records["check"]


def test_a_grown_collection_keeps_its_members_in_their_splits(chain: Chain) -> None:
    parent = {row["asset_id"]: row["split"] for row in chain.ws.store.read_table(chain.result.records["curate"]).to_pylist()}
    grown = curate(parse_spec("name: some\nbudget: 30\nparent: some@1\nsplits: {train: 0.5, test: 0.5}\n"), chain.ws)
    now = {row["asset_id"]: row["split"] for row in chain.ws.store.read_table(grown).to_pylist()}
    assert grown.assets == 30 and parent.items() <= now.items()


def test_nothing_leaks_into_a_held_out_version(chain: Chain) -> None:
    fresh = curate(parse_spec("name: fresh\nbudget: 1000\nmust_not_leak_into: [some@1]\n"), chain.ws)
    members = {row["asset_id"] for row in chain.ws.store.read_table(fresh).to_pylist()}
    held = {row["component_id"] for row in chain.ws.store.read_table(chain.result.records["curate"]).to_pylist()}
    components = {row["component_id"] for row in chain.ws.store.read_table(fresh).to_pylist()}
    assert members and not held & components and fresh.removed_for_leakage >= 20


def test_compaction_changes_no_answer(chain: Chain) -> None:
    some = chain.ws.store.read_table(chain.result.records["curate"])["asset_id"][3].as_py()
    before = [r.asset_id for r in search(chain.ws, like=[some], k=10).results]
    merged = maintain(chain.ws, compact=True)
    assert len(merged.segments) == 1
    assert [r.asset_id for r in search(chain.ws, like=[some], k=10).results] == before


def test_what_is_gone_from_its_source_is_neither_found_nor_chosen(chain: Chain) -> None:
    keeper, other = next(g for g in duplicate_groups(chain.result.records["dedupe"], chain.ws) if len(g) == 2)
    uris = {row["asset_id"]: row["source_uri"] for row in chain.ws.store.read_table(chain.result.records["ingest"]).to_pylist()}
    Path(uris[keeper]).rename(chain.source.parent / "aside.jpg")
    everything = parse_spec("name: left\nbudget: 1000\n")
    before = {row["asset_id"] for row in chain.ws.store.read_table(curate(everything, chain.ws)).to_pylist()}
    assert keeper in before and other not in before
    gone = run_pipeline([str(chain.source)], chain.ws)
    assert gone.records["ingest"].removed == 1
    _, removed = preview(everything, chain.ws)
    assert removed["removed_at_source"] == 1
    after = {row["asset_id"] for row in chain.ws.store.read_table(curate(everything, chain.ws)).to_pylist()}
    assert after == before - {keeper} | {other}  # its copy takes its place
    assert keeper not in {r.asset_id for r in search(chain.ws, like=[other], k=200).results}
    assert {row["asset_id"] for row in chain.ws.store.read_table(gone.records["ingest"], "removed").to_pylist()} == {keeper}
    (chain.source.parent / "aside.jpg").rename(uris[keeper])
    run_pipeline([str(chain.source)], chain.ws)
    assert {row["asset_id"] for row in chain.ws.store.read_table(curate(everything, chain.ws)).to_pylist()} == before


def test_removed_files_are_not_an_error_and_an_empty_source_is(chain: Chain, tmp_path: Path) -> None:
    (chain.source / "broken.jpg").unlink()
    assert ingest([str(chain.source)], chain.ws).rejected == 1
    with pytest.raises(SourceNotFound, match="is empty"):
        ingest([str(tmp_path)], chain.ws)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nbudget: 5\nwhere: brightnes < 1\n", 'no column "brightnes". Did you mean "brightness"'),
        ("name: x\nbudget: 5\nwhere: brightness > 2\n", "no candidate is left"),
        ("name: x\nbudget: 5\nquotas: [{by: kind, max: 1}]\n", "no such column"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused(chain: Chain, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        curate(parse_spec(text), chain.ws)
    with pytest.raises(UnknownRecord):
        curate(parse_spec("name: x\nbudget: 5\nparent: nobody@1\n"), chain.ws)
