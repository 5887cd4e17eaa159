"""The rows of two sets that may be compared: one of each burst, video and duplicate group, so that they are about independent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery.core.draws import draw, id_array, salted_order
from discovery.core.measures import MEASURES
from discovery.core.two_sample import LEAST_ROWS
from discovery.errors import CorruptArtifact
from discovery.stages.asset_sets import AssetSet
from discovery.stages.asset_table import asset_table, column_names
from discovery.stages.open_index import OpenIndex, Rows, open_index
from discovery.workspace import Workspace

SIZES = ("width_px", "height_px", "size_bytes", "exposure_s", "f_number", "iso", "focal_length_mm")
MADE_OF = ("format", "category", "camera_make", "camera_model", "lens_model", "flash_fired", "color_profile", "orientation")
MOST_VALUES = 0.5  # times the rows: a column of text with more values than that names pictures, it does not sort them
LEAST_VALUES = 20  # so many are never too many
FEW_UNITS = "Nearly all is of a few videos or bursts. All their frames were compared; they are not independent, so the p-values are too small."


@dataclass(frozen=True)
class Side:
    """One asset of each unit of a set: its row of the index, its row of the asset table, its id, and the number of its unit, ascending."""

    opened: OpenIndex
    assets: pa.Table
    rows: Rows
    places: Rows
    ids: NDArray[np.bytes_]
    units: Rows

    def only(self, mask: NDArray[np.bool_]) -> Side:
        """These units alone."""
        return replace(self, rows=self.rows[mask], places=self.places[mask], ids=self.ids[mask], units=self.units[mask])

    def drawn(self, count: int, salt: str) -> Side:
        """At most so many units, drawn by the salt."""
        keep = np.zeros(len(self.rows), np.bool_)
        keep[draw(self.ids, count, salt)] = True
        return self.only(keep)

    def vectors(self) -> NDArray[np.float32]:
        """(n, d) unit vectors."""
        return self.opened.vectors(self.rows)


@dataclass(frozen=True)
class Sides:
    """Both sets by their units, the units that both have, and what must be said of them."""

    a: Side
    b: Side
    shared: Rows
    note: str

    def each_once(self, salt: str) -> tuple[Side, Side]:
        """Both sides with every shared unit on one of them, by its hash; so no row is compared with itself, and rows stay exchangeable."""
        hashes = salted_order(self.a.ids[np.isin(self.a.units, self.shared)], salt)
        goes_to_b = self.shared[hashes & np.uint64(1) == 1]
        goes_to_a = np.setdiff1d(self.shared, goes_to_b)
        return self.a.only(~np.isin(self.a.units, goes_to_b)), self.b.only(~np.isin(self.b.units, goes_to_a))


def sides_of(a: AssetSet, b: AssetSet, ws: Workspace, salt: str) -> Sides:
    """Which assets stand for the units of two sets, of one snapshot or of two. Of the assets of a unit the first by a salted hash does.

    What a unit is, the newer snapshot says. Where a set has less units than the tests take, because it is of a few videos or bursts, every duplicate
    group is a unit, and `note` says so.
    """
    tables = {one.snapshot.id: asset_table(one.snapshot, ws, []) for one in sorted((a, b), key=lambda one: one.snapshot.generation)}
    unit_of: dict[str, str] = {}
    group_of: dict[str, str] = {}
    for table in tables.values():
        columns = [table[name].to_pylist() for name in ("asset_id", "video_id", "burst", "group_id")]
        for asset_id, video, burst, group in zip(*columns, strict=True):
            unit_of[asset_id], group_of[asset_id] = video or burst or group, group
    found = _sides(a, b, tables, unit_of, ws, salt, "")
    if min(len(found.a.rows), len(found.b.rows)) >= LEAST_ROWS:
        return found
    by_group = _sides(a, b, tables, group_of, ws, salt, FEW_UNITS)
    return by_group if min(len(by_group.a.rows), len(by_group.b.rows)) >= LEAST_ROWS else found


def columns_of(sides: Sides) -> tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]]:
    """Name to values of both sides: measures, sizes, what EXIF and lists say. Left out: what neither has, and text that names single pictures."""
    own, in_both = set(column_names()), set(sides.a.assets.column_names) & set(sides.b.assets.column_names)
    names = [*sorted(MEASURES), *SIZES, *MADE_OF, *sorted(in_both - own)]
    found: tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]] = ({}, {})
    for name in [*names, "taken_at"]:
        x, y = (_values(side.assets[name].take(pa.array(side.places)), name) for side in (sides.a, sides.b))
        if (x.dtype == object) != (y.dtype == object):
            continue  # a list's column that is text in one snapshot and numbers in the other
        if _says_nothing(x, y):
            continue
        shown = "hour_taken" if name == "taken_at" else name
        found[0][shown], found[1][shown] = x, y
    return found


def _says_nothing(x: NDArray[np.generic], y: NDArray[np.generic]) -> bool:
    """Whether neither has a value, or, of text, most rows have one of their own."""
    if x.dtype != object:
        return bool(np.isnan(x.astype(np.float64)).all() and np.isnan(y.astype(np.float64)).all())
    present = [one for one in (*x.tolist(), *y.tolist()) if one is not None]
    return not present or len(set(present)) > max(LEAST_VALUES, MOST_VALUES * len(present))


def _sides(a: AssetSet, b: AssetSet, tables: Mapping[str, pa.Table], unit_of: Mapping[str, str], ws: Workspace, salt: str, note: str) -> Sides:
    number: dict[str, int] = {}
    x, y = (_side(one, tables[one.snapshot.id], unit_of, number, ws, salt) for one in (a, b))
    return Sides(x, y, np.intersect1d(x.units, y.units), note)


def _side(found: AssetSet, assets: pa.Table, unit_of: Mapping[str, str], number: dict[str, int], ws: Workspace, salt: str) -> Side:
    """number: of each unit that was met so far; grows."""
    opened = open_index(found.snapshot, ws)
    ids, known = opened.ids(found.rows), id_array(assets["asset_id"].to_pylist())
    places = np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))
    if not len(known) or (known[places] != ids).any():
        raise CorruptArtifact(f"{found.label} has assets that the asset table lacks. Run `discovery verify`.")
    units = np.array([number.setdefault(unit_of[one.decode()], len(number)) for one in ids.tolist()], np.int64)
    order = np.lexsort((salted_order(ids, salt), units))
    first = order[np.unique(units[order], return_index=True)[1]]
    return Side(opened, assets, found.rows[first], places[first].astype(np.int64), ids[first], units[first])


def _values(column: pa.ChunkedArray, name: str) -> NDArray[np.generic]:
    """Numbers as float64, NaN where there is none; everything else as objects, None where there is none."""
    if name == "taken_at":
        return np.array([np.nan if one is None else one.hour + one.minute / 60 for one in column.to_pylist()], np.float64)
    if name not in MADE_OF and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    found = np.empty(len(column), object)
    found[:] = [None if one is None else str(one) for one in column.to_pylist()]
    return found
