"""Lineage: everything a record was made from, and everything that was made from it, out of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from discovery.errors import UnknownRecord
from discovery.stages.versions import VERSION_NAME, find_version
from discovery.types import (
    CollectionReport,
    DatasetVersion,
    DriftReport,
    DuplicateCalibration,
    DuplicateReport,
    EmbeddingSet,
    EmbeddingShard,
    FittedProjection,
    IndexSnapshot,
    IngestPart,
    Manifest,
    Mark,
    MeasureShard,
    NoveltyReport,
    QualityReport,
    Record,
    RegionShard,
    Segment,
)
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Node:
    """One record: its stage, when it was made, what it is in words, and where MLflow shows it (versions alone; else empty).

    depth: steps from the record that was asked for, by the shortest way.
    """

    id: str
    stage: str
    created_at: str
    what: str
    mlflow_url: str
    depth: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """Records and the edges between them, (child, parent); nearest first. missing: inputs that the catalog does not know."""

    root: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]


def lineage(text: str, ws: Workspace, *, descendants: bool = False) -> Lineage:
    """The whole ancestry of a record or of `name@number`; with `descendants`, what was made from it instead. Raises UnknownRecord."""
    root = find_version(text, ws) if VERSION_NAME.fullmatch(text) else ws.catalog.find_record(text)
    step: Callable[[str], list[str]] = ws.catalog.children if descendants else ws.catalog.parents
    published = {row.version_id: row for row in ws.catalog.versions()}
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    missing: list[str] = []
    seen, layer, depth = {root.id}, [root.id], 0
    while layer:
        following: list[str] = []
        for key in layer:
            try:
                record = ws.catalog.get_record(key)
            except UnknownRecord:
                missing.append(key)
                continue
            row = published.get(key)
            named = f"{row.name}@{row.number}: " if row else ""
            nodes[key] = Node(key, record.stage, record.created_at, named + in_words(record), (row.mlflow_url or "") if row else "", depth)
            for other in step(key):
                edges.append((other, key) if descendants else (key, other))
                if other not in seen:
                    seen.add(other)
                    following.append(other)
        layer, depth = following, depth + 1
    return Lineage(root.id, tuple(nodes.values()), tuple(edges), tuple(missing))


def tree_lines(found: Lineage, *, descendants: bool = False) -> list[str]:
    """The records as a tree, a line each; one that was shown is named again and not repeated."""
    nodes = {node.id: node for node in found.nodes}
    below: dict[str, list[str]] = {}
    for child, parent in found.edges:
        upper, lower = (parent, child) if descendants else (child, parent)
        below.setdefault(upper, []).append(lower)
    lines: list[str] = []
    shown: set[str] = set()
    waiting: list[tuple[str, str, str]] = [(found.root, "", "")]
    while waiting:
        key, lead, indent = waiting.pop()
        node = nodes.get(key)
        if node is None:
            lines.append(f"{lead}{key[:12]}  not in the catalog")
            continue
        again = key in shown and key in below
        lines.append(f"{lead}{node.stage} {key[:12]}  {node.created_at}  {node.what}{'  (see above)' if again else ''}{'  ' + node.mlflow_url if node.mlflow_url else ''}")
        if key in shown:
            continue
        shown.add(key)
        under = sorted(below.get(key, ()), key=lambda other: (nodes[other].created_at if other in nodes else "", other))
        for number, other in reversed(list(enumerate(under))):
            is_last = number == len(under) - 1
            waiting.append((other, f"{indent}{'└─ ' if is_last else '├─ '}", f"{indent}{'   ' if is_last else '│  '}"))
    return lines


def in_words(record: Record) -> str:
    """What a record is, in a few words with its counts."""
    match record:
        case Manifest():
            more = f" and {len(record.sources) - 3} more" if len(record.sources) > 3 else ""
            return f"{record.assets:,} assets and {record.rejected:,} rejected of {', '.join(record.sources[:3])}{more}"
        case IngestPart():
            return f"{record.rows:,} rows of an ingest that was interrupted"
        case MeasureShard():
            return f"measures of {record.assets:,} assets"
        case EmbeddingShard():
            return f"{record.assets:,} vectors of {record.dim} dimensions by {record.producer}"
        case RegionShard():
            return f"{record.regions:,} parts of {record.assets:,} assets by {record.producer}"
        case FittedProjection():
            return f"{record.dim} axes for the vectors of {record.encoder_id}"
        case QualityReport():
            verdict = "passed" if record.passed else f"failed ({', '.join(record.failed_expectations)})"
            return f"quality of {record.assets:,} assets: {verdict}, {record.quarantined:,} quarantined"
        case EmbeddingSet():
            return f"vectors of {record.assets:,} assets by {record.encoder_id}"
        case DuplicateCalibration():
            return f"from which similarity {record.encoder_id} proposes copies: {record.threshold:.3g}"
        case DuplicateReport():
            return f"{record.exact_groups:,} exact and {record.near_groups:,} near groups of {record.assets:,} assets"
        case NoveltyReport():
            return f"{record.novel:,} novel of {record.candidates:,} candidates against {record.reference or 'nothing'}"
        case Mark():
            return f"{record.by} says {record.mark} of {record.asset_id[:12]}"
        case Segment():
            return f"{record.elements:,} vectors of an index"
        case IndexSnapshot():
            return f"index of {record.elements:,} vectors in {len(record.segments)} segments, recall@10 at least {record.recall_lower_bound:.3f}"
        case DriftReport():
            return f"{record.b.label} against {record.a.label}"
        case DatasetVersion():
            return f"{record.assets:,} assets of {record.candidates:,} candidates"
        case CollectionReport():
            verdict = "passed" if record.passed else f"failed ({', '.join(record.failed_expectations)})"
            return f"check of {record.name}: {verdict}"
        case _:
            return record.stage
