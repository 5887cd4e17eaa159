"""Search: the nearest assets to examples, away from counter-examples, within a filter; distances, smaller is nearer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.filters import filter_assets
from discovery.core.knn import exact_knn
from discovery.core.knn import normalise as unit_rows
from discovery.errors import InvalidInput, UnknownRecord
from discovery.stages.asset_table import asset_table
from discovery.stages.history import current_snapshot, embedding_sets
from discovery.stages.index import open_segment, search_segments
from discovery.stages.query import Box, cut, encode_queries
from discovery.stages.shards import load_vectors, read_asset
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace

EXACT_SELECTIVITY = 0.05  # under this share of rows a filter is searched exactly (ALGORITHMS section 1)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One neighbour; cosine distance in [0, 2]."""

    asset_id: str
    source_uri: str
    distance: float


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Neighbours, nearest first, and how long the query itself took."""

    results: list[SearchResult]
    latency_ms: float


def search(
    ws: Workspace,
    *,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    images: Sequence[Path] = (),
    texts: Sequence[str] = (),
    box: Box | None = None,
    where: str = "",
    k: int = 10,
) -> SearchAnswer:
    """The k nearest assets to the mean of the examples, minus the mean of the counter-examples.

    like, unlike: asset ids or prefixes of them. images: picture files that count as examples. texts: words that say what is looked for,
    where the encoder has a text tower; they count as examples too. box: of the only example, an asset or a file, this part
    alone. where: an SQL expression over the asset table. Examples themselves are not among the results. Raises InvalidInput, UnknownRecord, SpecError, EncoderMismatch,
    Undecodable for a file that is no picture.
    """
    if not like and not images and not texts:
        raise InvalidInput("Nothing to search for: give --asset ID, --like ID, --image FILE or --text WORDS.")
    if k < 1:
        raise InvalidInput(f"-k must be at least 1, found {k}.")
    snapshot = current_snapshot(ws)
    ids, vectors = load_vectors(embedding_sets(snapshot, ws), ws)
    row_of = {asset_id: row for row, asset_id in enumerate(ids)}
    liked = [_resolve(text, ids) for text in like]
    unliked = [_resolve(text, ids) for text in unlike]
    table = asset_table(snapshot, ws, [])
    uri_of = dict(zip(table["asset_id"].to_pylist(), table["source_uri"].to_pylist(), strict=True))
    pictures = {str(path): _read_file(path) for path in images}
    if box is not None:
        if len(liked) + len(pictures) != 1 or texts:
            raise InvalidInput("A box is a part of one picture: give it with one --asset, or with one --image.")
        pictures = pictures or {liked[0]: read_asset(ws.store, liked[0], uri_of[liked[0]])}
        pictures = {name: cut(data, box) for name, data in pictures.items()}
    whole = [] if box else [vectors[row_of[asset_id]] for asset_id in liked]
    positive = whole + list(encode_queries(pictures, texts, snapshot, ws))
    query = np.mean(positive, axis=0)
    if unliked:
        query = query - np.mean([vectors[row_of[asset_id]] for asset_id in unliked], axis=0)
    query = unit_rows(query[None, :].astype(np.float32))
    excluded = {*liked, *unliked}
    present = filter_assets(filter_assets(table, "NOT is_removed"), where)
    allowed = set(present["asset_id"].to_pylist()) if len(present) < len(table) else None

    started = time.perf_counter()
    if allowed is not None and len(allowed) <= EXACT_SELECTIVITY * len(ids):
        found = _exact(query, [i for i in sorted(allowed) if i not in excluded], vectors, row_of, k)
    else:
        found = _by_index(query, snapshot, allowed, excluded, k, ws)
    latency_ms = (time.perf_counter() - started) * 1000
    return SearchAnswer([SearchResult(i, uri_of[i], round(d, 6)) for i, d in found], round(latency_ms, 3))


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise InvalidInput(f"{path} does not exist.")
    return path.read_bytes()


def _by_index(
    query: NDArray[np.float32], snapshot: IndexSnapshot, allowed: set[str] | None, excluded: set[str], k: int, ws: Workspace
) -> list[tuple[str, float]]:
    """Over-fetch, drop what the filter excludes, and widen until k are found or all were seen."""
    segments = [open_segment(ref, snapshot.encoder_id, ws) for ref in snapshot.segments]
    selectivity = len(allowed) / max(snapshot.elements, 1) if allowed is not None else 1.0
    fetch = int(1.3 * k / max(selectivity, 1e-9)) + len(excluded)
    while True:
        fetch = min(max(fetch, k), max(snapshot.elements, 1))
        found_ids, distances = search_segments(segments, query, fetch, max(snapshot.ef_search, fetch))
        pairs = zip(found_ids[0], distances[0], strict=True)
        kept = [(i, d) for i, d in pairs if i not in excluded and (allowed is None or i in allowed)]
        if len(kept) >= k or fetch >= snapshot.elements:
            return kept[:k]
        fetch *= 4


def _exact(
    query: NDArray[np.float32], ids: list[str], vectors: NDArray[np.float32], row_of: dict[str, int], k: int
) -> list[tuple[str, float]]:
    if not ids:
        return []
    subset = vectors[[row_of[asset_id] for asset_id in ids]]
    rows, distances = exact_knn(query, subset, min(k, len(ids)), reference_ids=ids)
    return [(ids[int(row)], float(d)) for row, d in zip(rows[0], distances[0], strict=True)]


def _resolve(text: str, ids: list[str]) -> str:
    matches = [asset_id for asset_id in ids if asset_id.startswith(text)] if len(text) >= 4 else []
    if len(matches) != 1:
        raise UnknownRecord(
            f"{'No' if not matches else 'More than one'} indexed asset has the id {text[:64]!r}. Ids are in `discovery search` and `score`."
        )
    return matches[0]
