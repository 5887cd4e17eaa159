"""The summary of the demo: counts, what was found against what was planted, the most novel pictures, versions and seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.findings import Finding
from demo.truth import Truth
from discovery.airflow.launcher import Stack
from discovery.stages.dedupe import duplicate_groups
from discovery.stages.history import current_snapshot
from discovery.stages.score import top_novel
from discovery.types import DuplicateReport, Manifest, NoveltyReport, QualityReport
from discovery.workspace import Workspace, open_workspace


def print_summary(
    stack: Stack, corpus: Path, truth: Truth, seconds: dict[str, dict[str, float]], compare: Callable[..., list[Finding]]
) -> None:
    """Read everything from the store and the catalog, as any client would, and print it."""
    with open_workspace(stack.config) as ws:
        manifests = [record for record in reversed(ws.catalog.records("ingest")) if isinstance(record, Manifest)]
        path_of = _paths(manifests, corpus, ws)
        print("\n── What came in " + "─" * 60)
        for manifest in manifests:
            reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.rejections.items())
            print(
                f"  {Path(manifest.sources[0]).name}: {manifest.rows:,} files, {manifest.assets:,} assets, {manifest.rejected} rejected ({reasons})"
            )
        novelty = _latest(NoveltyReport, ws)
        duplicates = _latest(DuplicateReport, ws)
        snapshot = current_snapshot(ws)
        shown = "searched exactly"
        if snapshot.strata:
            shown = (
                f"recall@10 {snapshot.recall_at_10:.4f} (of rare pictures too at least {snapshot.recall_lower_bound:.4f}, at {1 - snapshot.recall_delta:.0%} "
                f"confidence), ef {snapshot.ef_search}"
            )
        print(f"  index: {snapshot.elements:,} vectors in {len(snapshot.segments)} segments, {shown}")
        print("\n── Found against planted " + "─" * 51)
        print(f"  {'':18}{'planted':>8}{'found':>8}{'others':>8}")
        for finding in compare(truth, *_observed(manifests, path_of, duplicates, novelty, ws)):
            print(f"  {finding.name:18}{finding.planted:8}{finding.found:8}{finding.others:8}   {finding.remark}")
        print(f"\n── Most novel of {novelty.candidates} new pictures, at a false-discovery rate of {novelty.fdr:g} " + "─" * 18)
        uri_of = {asset_id: path for path, asset_id in path_of.items()}
        for row in top_novel(novelty, ws, 5):
            print(f"  novelty {row['novelty']:.3f}  q {row['q_value']:.3f}  {uri_of[str(row['asset_id'])]}")
        for theme in ws.store.read_table(novelty, "themes").to_pylist()[:5]:
            said = ", ".join(f"{word} {count}" for word, count in zip(theme["words"], theme["word_assets"], strict=True))
            print(f"  theme of {theme['assets']:3}  {said or uri_of[theme['exemplar']]}")
        groups = duplicate_groups(duplicates, ws)
        print(f"\n── Duplicates: {duplicates.exact_groups} exact and {duplicates.near_groups} near groups " + "─" * 36)
        for group in groups[:3]:
            print("  " + "  =  ".join(uri_of[asset_id] for asset_id in group[:3]))
        print("\n── Dataset versions " + "─" * 56)
        for version in sorted(ws.catalog.versions(), key=lambda row: (row.name, row.number)):
            print(f"  {version.name}@{version.number}  digest {version.digest}\n    {version.mlflow_url}")
    print("\n── Seconds in Airflow " + "─" * 54)
    for name, tasks in seconds.items():
        print(f"  {name:10} " + ", ".join(f"{task} {value:.1f}" for task, value in tasks.items()))
    print(flush=True)


def _latest(kind: Any, ws: Workspace) -> Any:
    return ws.catalog.records(kind.stage, 1)[0]


def _paths(manifests: list[Manifest], corpus: Path, ws: Workspace) -> dict[str, str]:
    """Path inside the corpus to asset id."""
    paths = {}
    for manifest in manifests:
        for row in ws.store.read_table(manifest, columns=["source_uri", "asset_id"]).to_pylist():
            if row["asset_id"]:
                paths[Path(row["source_uri"]).relative_to(corpus).as_posix()] = row["asset_id"]
    return paths


def _observed(
    manifests: list[Manifest], path_of: dict[str, str], duplicates: DuplicateReport, novelty: NoveltyReport, ws: Workspace
) -> tuple[Any, ...]:
    rejected = {}
    for manifest in manifests:
        for row in ws.store.read_table(manifest, columns=["source_uri", "reason"]).to_pylist():
            if row["reason"]:
                rejected["/".join(Path(row["source_uri"]).parts[-3:])] = row["reason"]
    quarantined = [
        row["asset_id"]
        for report in ws.catalog.records(QualityReport.stage)
        for row in ws.store.read_table(report, columns=["asset_id", "is_quarantined"]).to_pylist()
        if row["is_quarantined"]
    ]
    component = {row["asset_id"]: row["component_id"] for row in ws.store.read_table(duplicates).to_pylist()}
    novel = [row["asset_id"] for row in ws.store.read_table(novelty).to_pylist() if row["is_novel"]]
    return path_of, rejected, quarantined, component, novel, duplicates.near_groups
