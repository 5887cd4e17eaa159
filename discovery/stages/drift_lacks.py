"""What of one set has nothing like it in another one, grouped into themes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.config import DriftConfig
from discovery.core.coverage import Coverage, coverage
from discovery.core.themes import LONGEST_WORD, USUAL_ROWS, telling_words, theme_width, themes
from discovery.stages.asset_table import column_names
from discovery.stages.drift_units import Side
from discovery.stages.open_index import Rows


@dataclass(frozen=True)
class Lack:
    """Assets of one set with nothing like them in the other: of `asked`, the rows of the index and ids of those that are lacking, by theme and then farthest first.

    by_chance, threshold, is_more_than_chance: as of core.coverage. theme: 0 is the largest; exemplars: place of one asset a theme.
    nearest: ids of the assets of the other set that are least far. words: up to three a theme, folders and labels that it has more of than its set.
    """

    asked: int
    by_chance: float
    threshold: float
    is_more_than_chance: bool
    ids: NDArray[np.bytes_]
    distances: NDArray[np.float32]
    nearest: NDArray[np.bytes_]
    theme: Rows
    exemplars: Rows
    words: tuple[tuple[str, ...], ...]

    @property
    def share(self) -> float:
        """Of the assets that were looked up."""
        return len(self.ids) / self.asked if self.asked else 0.0


def lacking(side: Side, other: Side, shared: Rows, config: DriftConfig) -> Lack | None:
    """What of `side` the other set lacks; None when that has less than three assets, which say little of what is usual in it.

    Shared units are covered and are not looked up. Distances are those of the other index's search, exact up to its recall.
    """
    if len(other.rows) < 3:
        return None
    asked = side.drawn(config.coverage_rows, config.salt)
    open_rows = np.zeros(other.opened.rows, np.bool_)
    open_rows[other.rows] = True
    some = other.drawn(config.coverage_rows, config.salt)
    own = other.opened.search(some.vectors(), 1, allowed=open_rows, without=some.rows[:, None])[1][:, 0]
    distances, nearest = np.zeros(len(asked.rows), np.float32), np.full(len(asked.rows), -1)
    alone = np.flatnonzero(~np.isin(asked.units, shared))
    if len(alone):
        rows, apart = other.opened.search(asked.vectors()[alone], 1, allowed=open_rows)
        distances[alone], nearest[alone] = apart[:, 0], rows[:, 0]
    found = coverage(distances, own, config.usual)
    return _grouped(asked, distances, other.opened.ids(nearest), found)


def _grouped(asked: Side, distances: NDArray[np.float32], nearest: NDArray[np.bytes_], found: Coverage) -> Lack:
    chosen = np.flatnonzero(found.is_lacking)
    groups = themes(asked.vectors()[chosen], asked.ids[chosen], theme_width(asked.drawn(USUAL_ROWS, "themes").vectors()) if len(chosen) else 0.0)
    order = np.lexsort((asked.ids[chosen], -distances[chosen], groups.group))
    place = np.empty(len(chosen), np.int64)
    place[order] = np.arange(len(chosen))
    words = _words(asked)
    inside = [[words[row] for row in chosen[groups.group == number].tolist()] for number in range(len(groups.exemplars))]
    told = tuple(tuple(word for word, _ in telling_words(one, words)) for one in inside)
    rows = chosen[order]
    return Lack(
        len(asked.rows), found.by_chance, found.threshold, found.is_more_than_chance, asked.ids[rows], distances[rows], nearest[rows],
        groups.group[order], place[groups.exemplars], told,
    )  # fmt: skip


def _words(asked: Side) -> list[frozenset[str]]:
    """For each row its folder's name and the short texts that lists and sidecars say of it."""
    own = set(column_names())
    names = ["category", *(name for name in asked.assets.column_names if name not in own and pa.types.is_string(asked.assets[name].type))]
    table = asked.assets.select(names).take(pa.array(asked.places))
    columns = [column.to_pylist() for column in table.columns]
    return [frozenset(value.strip() for value in row if value and len(value.strip()) <= LONGEST_WORD) for row in zip(*columns, strict=True)]


def lacking_table(lack: Lack | None, held_by: str) -> pa.Table:
    """As schemas.LACKING, in the order of the record."""
    if lack is None:
        return schemas.LACKING.empty_table()
    is_exemplar = np.zeros(len(lack.ids), np.bool_)
    is_exemplar[lack.exemplars] = True
    columns = [
        [one.decode() for one in lack.ids.tolist()], [held_by] * len(lack.ids), lack.theme.astype(np.int32), is_exemplar, lack.distances,
        [one.decode() for one in lack.nearest.tolist()],
    ]  # fmt: skip
    return pa.Table.from_arrays([pa.array(one) for one in columns], schema=schemas.LACKING)
