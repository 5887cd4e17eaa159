"""Search: the nearest assets to examples, away from counter-examples, within a filter; distances, smaller is nearer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery.adapters.filters import filter_assets
from discovery.core.draws import ID_DIGITS
from discovery.core.knn import normalise as unit_rows
from discovery.core.rerank import alpha_query_expansion, database_augmentation, diversify, k_reciprocal_distances
from discovery.errors import CorruptArtifact, InvalidInput, UnknownRecord
from discovery.stages.asset_table import asset_table
from discovery.stages.history import current_snapshot, embedding_sets
from discovery.stages.open_index import OpenIndex, open_index
from discovery.stages.query import Box, cut, encode_queries
from discovery.stages.shards import read_asset, vectors_for
from discovery.types import DuplicateReport, IndexSnapshot, Manifest
from discovery.workspace import Workspace

MOST_EXPANDED = 100
MOST_RERANKED = 2000  # takes its square in memory
AUGMENTED = 200  # of the nearest, compared as they lie among their own
SPREAD = 3  # times k, that a diverse answer is chosen from


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One neighbour. distance: cosine distance to what was asked, in [0, 2]; reranked: after a second look, what the order is by.

    box: after a search by a part, where the nearest one is: x, y, width, height in pixels of the upright picture.
    """

    asset_id: str
    source_uri: str
    distance: float
    reranked: float | None = None
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Neighbours, nearest first, and how long the query itself took."""

    results: list[SearchResult]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: the mean of the examples, minus the mean of the counter-examples.

    like, unlike: asset ids or prefixes of them. images: picture files that count as examples. texts: words that say what is looked for,
    where the encoder has a text tower; they count as examples too. box: of the only example, an asset or a file, this part
    alone.
    """

    like: Sequence[str] = ()
    unlike: Sequence[str] = ()
    images: Sequence[Path] = ()
    texts: Sequence[str] = ()
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What is done with the nearest before they are shown (core.rerank); 0 and False leave it out. Done in this order.

    expand: search again from the query and its so many nearest (α-query expansion). augment: compare with each of the shortlist
    as it lies among its own so many nearest (database-side augmentation). rerank: order so many nearest by neighbours in common (k-reciprocal
    encoding). diverse: of three times k, k that differ from one another, the nearest first.
    """

    expand: int = 0
    augment: int = 0
    rerank: int = 0
    diverse: bool = False

    def __post_init__(self) -> None:
        limits = {"expand": MOST_EXPANDED, "augment": MOST_EXPANDED, "rerank": MOST_RERANKED}
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise InvalidInput(f"{name} is a number of neighbours from 0 to {most}, found {getattr(self, name)}.")

    def shortlist(self, k: int) -> int:
        """How many nearest it needs for an answer of k."""
        return max(k, self.rerank, AUGMENTED if self.augment else 0, SPREAD * k if self.diverse else 0)


ONE_LOOK = SecondLook()

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
    second_look: SecondLook = ONE_LOOK,
) -> SearchAnswer:
    """The k nearest assets to the mean of the examples, minus the mean of the counter-examples.

    For like, unlike, images, texts and box see Query. where: an SQL expression over the asset table. second_look: what the answer is improved
    by, at some milliseconds. Examples themselves, and pictures with the same
    pixels, are not among the results. Raises InvalidInput, UnknownRecord, SpecError, EncoderMismatch,
    Undecodable for a file that is no picture.
    """
    return search_many(ws, [Query(like, unlike, images, texts, box)], where=where, k=k, second_look=second_look)[0]


def search_many(
    ws: Workspace, queries: Sequence[Query], *, where: str = "", k: int = 10, second_look: SecondLook = ONE_LOOK
) -> list[SearchAnswer]:
    """The answer to each query, which are all put to the index at once; `latency_ms` is each one's share. As `search`, and raises what it raises."""
    if k < 1:
        raise InvalidInput(f"-k must be at least 1, found {k}.")
    if any(not query.like and not query.images and not query.texts for query in queries) or not queries:
        raise InvalidInput("Nothing to search for: give --asset ID, --like ID, --image FILE or --text WORDS.")
    if any(query.box and (len(query.like) + len(query.images) != 1 or query.texts) for query in queries):
        raise InvalidInput("A box is a part of one picture: give it with one --asset, or with one --image.")
    snapshot = current_snapshot(ws)
    library = Library(snapshot, ws)
    points = _points(queries, library)
    allowed, shown = library.allowed(where)
    excluded = [library.index.find(_ids([*points.liked[number], *points.unliked[number]])) for number in range(len(queries))]
    without = np.full((len(queries), max((len(rows) for rows in excluded), default=0)), -1, np.int64)
    for number, found in enumerate(excluded):
        without[number, : len(found)] = found

    started = time.perf_counter()
    ask = _Asked(library.index, allowed, without, k, second_look)
    rows, distances, order = ask.answer(points.vectors)
    latency_ms = (time.perf_counter() - started) * 1000 / len(queries)
    names = library.index.ids(rows)
    uris = library.uris({shown.get(one, one) for one in (name.decode() for name in np.unique(names)) if one})
    answers = []
    for number in range(len(queries)):
        results = []
        for place, name in enumerate(names[number]):
            if name:
                one = shown.get(name.decode(), name.decode())
                by = None if second_look == ONE_LOOK else round(float(order[number, place]), 6)
                results.append(SearchResult(one, uris[one], round(float(distances[number, place]), 6), by))
        answers.append(SearchAnswer(results, round(latency_ms, 3)))
    return answers


@dataclass(frozen=True, slots=True)
class _Asked:
    """How one set of queries is put to an index. without: (n, m) rows that are in none of a query's answers."""

    index: OpenIndex
    allowed: NDArray[np.bool_] | None
    without: NDArray[np.int64]
    k: int
    look: SecondLook

    def answer(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        """Rows (n, k), -1 for none; their distances to the queries as they were asked; and what they are ordered by."""
        look, index = self.look, self.index
        short = look.shortlist(self.k)
        asked = queries
        if look.expand:
            near, _ = self._search(queries, look.expand, slice(None))
            asked = np.stack([
                alpha_query_expansion(query, index.vectors(rows[rows >= 0]), k=look.expand) for query, rows in zip(queries, near, strict=True)
            ])  # fmt: skip
        rows, distances = self._search(asked, short, slice(None))
        order = distances.astype(np.float64)
        if look == ONE_LOOK:
            return rows, distances, order
        shape = (len(queries), self.k)
        chosen, apart, by = np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32), np.full(shape, np.inf)
        for number, query in enumerate(asked):
            mine = rows[number][rows[number] >= 0]
            if len(mine):
                places, value = self._looked(query, mine, order[number, : len(mine)])
                chosen[number, : len(places)], by[number, : len(places)] = mine[places], value
                plain = index.vectors(mine[places]) @ queries[number]
                apart[number, : len(places)] = np.clip(1.0 - plain, 0.0, 2.0)
        return chosen, apart, by

    def _search(self, queries: NDArray[np.float32], k: int, which: slice) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self.index.search(queries, k, allowed=self.allowed, without=self.without[which])

    def _looked(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], order: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Places in a shortlist, best first, at most k, and what they are ordered by."""
        look, index = self.look, self.index
        vectors = index.vectors(rows)
        names = [name.decode() for name in index.ids(rows)]
        if look.augment:
            near, _ = index.search(vectors, look.augment, without=rows[:, None])
            kept, places = np.unique(np.concatenate([rows, near.ravel()[near.ravel() >= 0]]), return_inverse=True)
            graph = np.full(near.shape, -1, np.int64)
            graph[near >= 0] = places[len(rows) :]
            moved = database_augmentation(index.vectors(kept), graph, places[: len(rows)])
            vectors, order = moved, np.asarray(np.clip(1.0 - moved @ query, 0.0, 2.0), np.float64)
        if look.rerank:
            order = k_reciprocal_distances(query, vectors, names).astype(np.float64)
        best = np.lexsort((np.asarray(names), order))
        if look.diverse:
            best = best[: SPREAD * self.k]
            taken = diversify(order[best], vectors[best], [names[place] for place in best], self.k)
            best = best[taken]
        best = best[: self.k]
        return best, order[best]


@dataclass(frozen=True, slots=True)
class _Points:
    """(n, d) float32 unit vectors to search from, and for each the indexed assets that stand for its examples and counter-examples."""

    vectors: NDArray[np.float32]
    liked: list[list[str]]
    unliked: list[list[str]]


def _points(queries: Sequence[Query], library: Library) -> _Points:
    """Vectors of all queries; every picture file and text is encoded once, in one go."""
    ws = library.ws
    liked = [[library.resolve(text) for text in query.like] for query in queries]
    unliked = [[library.resolve(text) for text in query.unlike] for query in queries]
    pictures: dict[str, bytes] = {}
    texts: list[str] = []
    keys: list[list[str]] = []  # of the pictures and texts of each query
    for number, query in enumerate(queries):
        mine: list[str] = []
        named = {str(path): read_file(path) for path in query.images}
        if query.box is not None:
            if not named:
                asset_id = liked[number][0]
                named = {asset_id: read_asset(ws.store, asset_id, library.uris({asset_id})[asset_id])}
            named = {f"{name}#{query.box}": cut(data, query.box) for name, data in named.items()}
        pictures.update(named)
        mine += named
        texts += [text for text in query.texts if text not in texts]
        keys.append([*mine, *query.texts])
    encoded = dict(zip([*pictures, *texts], encode_queries(pictures, texts, library.snapshot, ws), strict=True))
    of_asset = library.vectors(sorted({one for ids in (*liked, *unliked) for one in ids}))
    vectors = []
    for number, query in enumerate(queries):
        whole = [] if query.box else [of_asset[one] for one in liked[number]]
        point = np.mean([*whole, *(encoded[key] for key in keys[number])], axis=0)
        if unliked[number]:
            point = point - np.mean([of_asset[one] for one in unliked[number]], axis=0)
        vectors.append(point.astype(np.float32))
    stand = library.stand_in
    return _Points(unit_rows(np.stack(vectors)), [[stand(one) for one in ids] for ids in liked], [[stand(one) for one in ids] for ids in unliked])


def read_file(path: Path) -> bytes:
    """The bytes of a picture that a search begins with. Raises InvalidInput where there is none."""
    if not path.is_file():
        raise InvalidInput(f"{path} does not exist.")
    return path.read_bytes()


def _ids(names: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array(list(names), f"S{ID_DIGITS}")


class Library:
    """An open snapshot with what is said of its assets, read when it is first needed and kept while the workspace is open."""

    def __init__(self, snapshot: IndexSnapshot, ws: Workspace) -> None:
        self.snapshot = snapshot
        self.ws = ws
        self.index: OpenIndex = open_index(snapshot, ws)
        kept = ws.cache.get("search")
        if kept is None or kept["snapshot"] != snapshot.id:
            kept = ws.cache["search"] = {"snapshot": snapshot.id}
        self._kept = kept

    def resolve(self, text: str) -> str:
        """The asset of an id or a prefix of one, also when it is in no segment since another with the same pixels is."""
        matches: set[str] = set()
        if 4 <= len(text) <= ID_DIGITS:
            matches = set(self.index.starting_with(text))
            if len(text) < ID_DIGITS or not matches:
                named = self.pixels["asset_id"]
                matches |= set(named.filter(pc.starts_with(named, text)).slice(0, 2).to_pylist())
        if len(matches) != 1:
            raise UnknownRecord(
                f"{'No' if not matches else 'More than one'} indexed asset has the id {text[:64]!r}. Ids are in `discovery search` and `score`."
            )
        return matches.pop()

    def vectors(self, names: list[str]) -> Mapping[str, NDArray[np.float32]]:
        """Of assets in the index, removed or not, and of others from the shards."""
        rows = self.index.find(_ids(names))
        found = {name: self.index.vectors(rows[number : number + 1])[0] for number, name in enumerate(names) if rows[number] >= 0}
        absent = [name for name in names if name not in found]
        if absent:
            found.update(zip(absent, vectors_for(embedding_sets(self.snapshot, self.ws), _ids(absent), self.ws), strict=True))
        return found

    def stand_in(self, asset_id: str) -> str:
        """The asset that is indexed for the pixels of this one."""
        if self.index.find(_ids([asset_id]))[0] >= 0:
            return asset_id
        same = self._same_pixels([asset_id])
        return next((one for one in same if (row := self.index.find(_ids([one]))[0]) >= 0 and self.index.alive[row]), asset_id)

    def _same_pixels(self, names: list[str]) -> list[str]:
        table = self.pixels
        classes = table.filter(pc.is_in(table["asset_id"], pa.array(names)))["pixel_keeper"]
        return sorted(table.filter(pc.is_in(table["pixel_keeper"], classes))["asset_id"].to_pylist())

    @property
    def pixels(self) -> pa.Table:
        """asset_id and pixel_keeper of all that is known."""
        if "pixels" not in self._kept:
            report = self.ws.store.load_record(DuplicateReport, self.snapshot.duplicates_id)
            if report is None:
                raise CorruptArtifact(f"Duplicate report {self.snapshot.duplicates_id} is missing. Run `discovery verify`.")
            self._kept["pixels"] = self.ws.store.read_table(report, columns=["asset_id", "pixel_keeper"])
        table: pa.Table = self._kept["pixels"]
        return table

    def allowed(self, where: str) -> tuple[NDArray[np.bool_] | None, dict[str, str]]:
        """Rows that pass a filter, and under which asset a row is shown when only a copy of its pixels passes. None: all."""
        if not where.strip():
            return None, {}
        if "assets" not in self._kept:
            self._kept["assets"] = filter_assets(asset_table(self.snapshot, self.ws, []), "NOT is_removed")
        passing = np.sort(_ids(filter_assets(self._kept["assets"], where)["asset_id"].to_pylist()))
        mask = np.zeros(self.index.rows, np.bool_)
        rows = self.index.find(passing)
        is_live = (rows >= 0) & self.index.alive[rows]
        mask[rows[is_live]] = True
        shown: dict[str, str] = {}
        copies = [one.decode() for one in passing[~is_live]]
        if copies:
            table = self.pixels.filter(pc.is_in(self.pixels["asset_id"], pa.array(copies)))
            for name, keeper in sorted(zip(table["asset_id"].to_pylist(), table["pixel_keeper"].to_pylist(), strict=True)):
                stand = self.stand_in(name)
                row = int(self.index.find(_ids([stand]))[0])
                if row >= 0 and self.index.alive[row] and not mask[row] and keeper:
                    shown.setdefault(stand, name)
            mask[self.index.find(_ids(sorted(shown)))] = True
        return mask, shown

    def uris(self, names: set[str]) -> dict[str, str]:
        """Where assets come from: the first listing of the newest manifest that has them."""
        found: dict[str, str] = {}
        for embedded in reversed(embedding_sets(self.snapshot, self.ws)):
            wanted = names - set(found)
            if not wanted:
                break
            manifest = self.ws.store.load_record(Manifest, embedded.manifest_id)
            if manifest is None:
                raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest. Run `discovery verify`.")
            tables: dict[str, pa.Table] = self._kept.setdefault("manifests", {})
            if manifest.id not in tables:
                tables[manifest.id] = self.ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
            table = tables[manifest.id]
            for row in table.filter(pc.is_in(table["asset_id"], pa.array(sorted(wanted)))).to_pylist():
                found.setdefault(row["asset_id"], row["source_uri"])
        return found
