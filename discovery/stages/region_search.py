"""Search by a part: the assets that have the part most similar to a crop, or to a box of a picture, and where they have it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovery.core.knn import normalise
from discovery.errors import InvalidInput
from discovery.stages.history import current_snapshot
from discovery.stages.open_index import OpenIndex
from discovery.stages.query import Box, cut
from discovery.stages.regions import describe_regions, region_query, search_regions
from discovery.stages.search import Library, SearchAnswer, SearchResult, read_file
from discovery.stages.shards import read_asset
from discovery.types import RegionShard
from discovery.workspace import Workspace


def search_by_region(
    ws: Workspace, *, like: Sequence[str] = (), images: Sequence[Path] = (), box: Box | None = None, where: str = "", k: int = 10
) -> SearchAnswer:
    """The k assets whose nearest region is nearest to the mean of the examples, each taken as a part of what is looked for; with its box.

    like: asset ids or prefixes of them. images: picture files; of one that is transparent around its subject, the opaque part. box: of the only
    example, this part alone. where: an SQL expression over the asset table. Assets that are examples, and copies of their pixels, are not
    among the results, and of copies there is one.
    Raises InvalidInput, UnknownRecord, SpecError, Undecodable for a file that is no picture; what `search_regions` raises.
    """
    if not like and not images:
        raise InvalidInput("Nothing to search for: give --asset ID, --like ID or --image FILE, whole or with a --box.")
    if k < 1:
        raise InvalidInput(f"-k must be at least 1, found {k}.")
    if box is not None and len(like) + len(images) != 1:
        raise InvalidInput("A box is a part of one picture: give it with one --asset, or with one --image.")
    library = Library(current_snapshot(ws), ws)
    liked = [library.resolve(text) for text in like]
    uris = library.uris(set(liked))
    pictures = [read_asset(ws.store, asset_id, uris[asset_id]) for asset_id in liked] + [read_file(path) for path in images]
    if box is not None:
        pictures = [cut(data, box) for data in pictures]
    mask, shown = library.allowed(where)
    allowed = _ids(library.index, mask) - {library.stand_in(asset_id) for asset_id in liked}
    seen = np.stack([region_query(data, ws) for data in pictures])
    query = normalise(seen.mean(axis=0, keepdims=True))
    started = time.perf_counter()
    found = search_regions(query[0], allowed, k, ws, library.uris)
    names = [shown.get(match.asset_id, match.asset_id) for match in found]
    uris = library.uris(set(names))
    results = [
        SearchResult(name, uris[name], round(match.distance, 6), box=(match.box.x, match.box.y, match.box.width, match.box.height))
        for name, match in zip(names, found, strict=True)
    ]
    return SearchAnswer(results, round((time.perf_counter() - started) * 1000, 3))


def describe_all(ws: Workspace) -> list[RegionShard]:
    """The regions of every asset that the current index offers, so that searches need compute none; those that exist stay."""
    library = Library(current_snapshot(ws), ws)
    return describe_regions(library.uris(_ids(library.index, None)), ws)


def _ids(index: OpenIndex, mask: NDArray[np.bool_] | None) -> set[str]:
    """The assets of an index that are there and pass a filter."""
    rows = np.flatnonzero(index.alive if mask is None else index.alive & mask)
    return {name.decode() for name in index.ids(rows).tolist()}
