"""Copies among assets: pairs that are proposed, laid on each other and verified; what was verified before is not looked at again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.config import DedupeConfig
from discovery.core.alignment import Small, align
from discovery.core.duplicates import DuplicateGroups, cosine_pairs, cosines, group_duplicates, hamming_pairs, turned_luma_pairs
from discovery.core.measures import small_rgb
from discovery.core.projection import Projection
from discovery.core.relations import SAME, Geometry, geometry, relation_of
from discovery.workspace import MapShards

PAIRS_AT_ONCE = 20_000  # whose pictures are in memory together: at most 2 x 12 KB each
ROWS_AT_ONCE = 65_536
PAIRS_A_TASK = 600  # some seconds of work, and mostly under 8 MB of pictures; a task prepares its pictures itself
WORTH_SPREADING = 4000  # proposed pairs, half a minute on one core: from there workers are asked
REPORTED = 10_000  # pairs between two lines of progress
TILE = 1000  # assets a side of a tile of pairs; a prepared picture takes 0.2 MB
RICH_OF_PART = 2  # times as much must be seen to agree: a place that fits is soon found for little
Picture = NDArray[np.uint8]  # (12288,), of core.measures.small_picture


@dataclass(frozen=True, slots=True)
class Proposer:
    """From which cosine on two vectors propose a copy. id: of the calibration, empty for none; then vectors are compared as they are."""

    id: str
    threshold: float
    projection: Projection | None

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vectors to compare, each a function of its own row: in float64, so that how rows are batched does not show."""
        if self.projection is None or not len(vectors):
            return vectors
        mean, axes = self.projection.mean.astype(np.float64), self.projection.axes.astype(np.float64)
        result = np.empty((len(vectors), axes.shape[1]), np.float32)
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            projected = (vectors[start : start + ROWS_AT_ONCE].astype(np.float64) - mean) @ axes
            lengths = np.sqrt((projected**2).sum(axis=1, keepdims=True))
            result[start : start + len(projected)] = projected / np.maximum(lengths, 1e-12)
        return result


@dataclass(frozen=True, slots=True)
class Assets:
    """Columns of all assets in question, in the order of `ids` (ascending); pdq (n, 32) and luma (n, 256) uint8, size (n, 2) pixels."""

    ids: list[str]
    vectors: NDArray[np.float32]
    pdq: NDArray[np.uint8]
    pdq_quality: NDArray[np.int64]
    luma: NDArray[np.uint8]
    sharpness: NDArray[np.float64]
    size: NDArray[np.int64]
    pixel_sha256: list[str]
    burst: list[str | None]
    source_rows: list[int]

    def some(self, rows: NDArray[np.int64]) -> Assets:
        """Those of the given rows, ascending."""
        columns: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen: dict[str, Any] = {name: [values[row] for row in rows] if isinstance(values, list) else values[rows] for name, values in columns.items()}
        return Assets(**chosen)


@dataclass(frozen=True, slots=True)
class Pair:
    """One verified pair, a < b; the names are those of schemas.PAIRS."""

    asset_a: str
    asset_b: str
    relation: str
    pdq_distance: int
    cosine: float
    luma_correlation: float
    difference: float
    seen: Geometry

    def row(self) -> dict[str, object]:
        """As a row of the table."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "seen"}
        return {**plain, **asdict(self.seen)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Pair:
        """Back from a row of the table."""
        seen = {field.name: row[field.name] for field in fields(Geometry)}
        return cls(**{name: value for name, value in row.items() if name not in seen}, seen=Geometry(**seen))


def find_pairs(
    assets: Assets,
    earlier: Sequence[Pair],
    complete: frozenset[str],
    proposer: Proposer,
    config: DedupeConfig,
    pictures: Callable[[set[str]], Mapping[str, Picture]],
    report: Callable[[str], None] = lambda message: None,
    workers: Callable[[int], MapShards | None] = lambda units: None,
) -> list[Pair]:
    """All verified pairs, by ids: earlier ones between listed assets, what is new, and those that share their pixels.

    earlier: verified pairs among the assets `complete`, found by the same proposer and config; then the result is that of comparing all
    anew. pictures: what core.measures.small_picture made of the asked assets; it is asked for a part of them at a time.
    workers: of how many units there are to what spreads them, like map and in any order; None to compare here. It is asked when there are many pairs.
    """
    listed = set(assets.ids)
    fresh = np.array([asset_id not in complete for asset_id in assets.ids], bool)
    kept = [pair for pair in earlier if pair.relation != "same_pixels" and pair.asset_a in listed and pair.asset_b in listed]
    proposed = propose(assets, fresh, proposer, config)
    found: list[Pair] = []
    done = 0
    spread = workers(-(-len(proposed) // PAIRS_A_TASK)) if len(proposed) >= WORTH_SPREADING else None
    for start in range(0, len(proposed), PAIRS_AT_ONCE):
        part = proposed[start : start + PAIRS_AT_ONCE]
        seen = pictures({assets.ids[row] for row in np.unique(part)})
        units = _tasks(assets, part, seen, config, PAIRS_A_TASK if spread else len(part))
        for compared, pairs in spread(compare, units) if spread else map(compare, units):
            found.extend(pairs)
            done += compared
            if done % REPORTED < compared or done == len(proposed):
                report(f"dedupe: {done:,} of {len(proposed):,} proposed pairs compared")
    return sorted([*kept, *found, *same_pixels(assets)], key=lambda pair: (pair.asset_a, pair.asset_b))


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Some proposed pairs, (m, 2) rows of the assets that are in them, and the pictures of these: all that a worker needs."""

    assets: Assets
    proposed: NDArray[np.int64]
    pictures: Mapping[str, Picture]
    config: DedupeConfig


def compare(task: CompareTask) -> tuple[int, list[Pair]]:
    """How many pairs were compared, and those that are copies; runs on a worker."""
    return len(task.proposed), list(verified(task.assets, task.proposed, task.pictures, task.config))


def _tasks(
    assets: Assets, proposed: NDArray[np.int64], pictures: Mapping[str, Picture], config: DedupeConfig, size: int
) -> Iterator[CompareTask]:
    """The pairs tile by tile, so that a unit of `size` pairs holds few assets."""
    order = np.lexsort((proposed[:, 1], proposed[:, 0], proposed[:, 1] // TILE, proposed[:, 0] // TILE))
    for start in range(0, len(order), size):
        part = proposed[order[start : start + size]]
        rows, places = np.unique(part, return_inverse=True)
        some = assets.some(rows)
        yield CompareTask(some, places.reshape(part.shape).astype(np.int64), {one: pictures[one] for one in some.ids}, config)


def propose(assets: Assets, fresh: NDArray[np.bool_], proposer: Proposer, config: DedupeConfig) -> NDArray[np.int64]:
    """(m, 2) rows, i < j, sorted, of pairs with at least one fresh asset that may be copies; never two with the same pixels."""
    if len(assets.ids) < 2 or not fresh.any():
        return np.zeros((0, 2), np.int64)
    by_hash, _ = hamming_pairs(assets.pdq, config.pdq_max_distance, assets.pdq_quality >= config.pdq_min_quality, fresh=fresh)
    by_luma, _ = turned_luma_pairs(assets.luma, config.min_luma_correlation, fresh=fresh)
    by_vector, _ = cosine_pairs(proposer(assets.vectors), proposer.threshold, fresh=fresh)
    pairs = np.unique(np.concatenate([by_hash, by_luma, by_vector]), axis=0)
    numbers: dict[str, int] = {}
    pixels = np.array([numbers.setdefault(text, len(numbers)) for text in assets.pixel_sha256], np.int64)
    return np.asarray(pairs[pixels[pairs[:, 0]] != pixels[pairs[:, 1]]], np.int64)


def verified(assets: Assets, proposed: NDArray[np.int64], pictures: Mapping[str, Picture], config: DedupeConfig) -> Iterator[Pair]:
    """Those of the (m, 2) proposed pairs that are copies. pictures: what core.measures.small_picture made, by asset id."""
    for pair, rich in laid_on_each_other(assets, proposed, pictures):
        if pair.difference <= config.max_difference and shows_enough(pair, rich, config):
            yield pair


def shows_enough(pair: Pair, rich: float, config: DedupeConfig) -> bool:
    """Whether the share of a picture that shows detail and agrees is evidence; of a part more is asked."""
    return rich >= config.min_rich * (1 if pair.seen.direction == "whole" else RICH_OF_PART)


def laid_on_each_other(
    assets: Assets, proposed: NDArray[np.int64], pictures: Mapping[str, Picture]
) -> Iterator[tuple[Pair, float]]:
    """What laying b on a tells of each proposed pair, and the share that shows detail and agrees; none where nothing is alike."""
    cosine = cosines(assets.vectors, proposed)

    @functools.lru_cache(maxsize=2 * TILE)
    def small(row: int) -> Small:
        width, height = assets.size[row].tolist()
        return Small(small_rgb(pictures[assets.ids[row]]), width / height, assets.pdq[row])

    order = np.lexsort((proposed[:, 1], proposed[:, 0], proposed[:, 1] // TILE, proposed[:, 0] // TILE))  # what is prepared is used again
    for number in order.tolist():
        a, b = proposed[number].tolist()
        found = align(small(a), small(b))
        if found is None:
            continue
        seen = geometry(found)
        size_a, size_b = ((int(assets.size[row, 0]), int(assets.size[row, 1])) for row in (a, b))
        is_same_burst = assets.burst[a] is not None and assets.burst[a] == assets.burst[b]
        yield (
            Pair(
                assets.ids[a], assets.ids[b], relation_of(seen, size_a, size_b, is_same_burst),
                int(np.bitwise_count(assets.pdq[a] ^ assets.pdq[b]).sum()), float(cosine[number]), found.agreement.correlation,
                found.difference, seen,
            ),
            found.agreement.rich,
        )  # fmt: skip


def same_pixels(assets: Assets) -> list[Pair]:
    """Each asset with the smallest one of the same pixels."""
    first: dict[str, int] = {}
    rows = [(first.setdefault(pixels, row), row) for row, pixels in enumerate(assets.pixel_sha256)]
    return [
        Pair(
            assets.ids[a], assets.ids[b], "same_pixels", int(np.bitwise_count(assets.pdq[a] ^ assets.pdq[b]).sum()),
            float(assets.vectors[a] @ assets.vectors[b]), 1.0, 0.0, SAME,
        )
        for a, b in rows
        if a != b
    ]  # fmt: skip


def group_assets(assets: Assets, pairs: Sequence[Pair]) -> DuplicateGroups:
    """Stars around keepers: most pixels, then sharpest, then smallest id."""
    row = {asset_id: number for number, asset_id in enumerate(assets.ids)}
    links = np.array([(row[pair.asset_a], row[pair.asset_b]) for pair in pairs], np.int64).reshape(-1, 2)
    pixels = (assets.size[:, 0] * assets.size[:, 1]).astype(np.float64)
    return group_duplicates(assets.ids, np.stack([pixels, assets.sharpness], axis=1), links)
