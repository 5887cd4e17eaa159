"""Columns of some assets, as arrays: their measures, sizes, cameras and folders, without reading those of all others row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery.core.measures import MEASURES
from discovery.errors import CorruptArtifact
from discovery.types import EmbeddingSet, Manifest, QualityReport
from discovery.workspace import Workspace

NUMBERS = ("width_px", "height_px", "exposure_s", "f_number", "iso", "focal_length_mm")
CATEGORIES = ("format", "folder", "camera_make", "camera_model")


def columns_of(ids: NDArray[np.bytes_], sets: Sequence[EmbeddingSet], ws: Workspace) -> dict[str, NDArray[np.generic]]:
    """Name to (m,) values of the m of these assets that the embedding sets hold; of several listings the newest counts.

    ids: (n,) S64. Numbers are float64, NaN where there is none; the others objects, None where there is none. Raises CorruptArtifact.
    """
    wanted = pa.array(ids.astype("U64"))
    parts: list[pa.Table] = []
    for embedded in reversed(sets):
        if not len(wanted):
            break
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        report = ws.store.load_record(QualityReport, embedded.report_id)
        if manifest is None or report is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest or report. Run `discovery verify`.")
        listed = ws.store.read_table(manifest, columns=["asset_id", *NUMBERS, *CATEGORIES])
        listed = listed.filter(pc.is_in(listed["asset_id"], wanted))
        first = np.unique(listed["asset_id"].to_numpy(), return_index=True)[1] if len(listed) else np.zeros(0, np.int64)
        measured = ws.store.read_table(report, "measures")
        present = [name for name in sorted(MEASURES) if name in measured.column_names]
        joined = listed.take(pa.array(first)).join(measured.select(["asset_id", *present]), "asset_id", join_type="inner")
        parts.append(joined)
        wanted = wanted.filter(pc.invert(pc.is_in(wanted, joined["asset_id"].combine_chunks())))
    if not parts:
        return {}
    table = pa.concat_tables(parts, promote_options="default")
    found: dict[str, NDArray[np.generic]] = {}
    for name in (*sorted(MEASURES), *NUMBERS):
        if name in table.column_names:
            found[name] = np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)
    for name in CATEGORIES:
        values = np.empty(len(table), object)
        values[:] = [None if one is None else str(one) for one in table[name].to_pylist()]
        found[name] = values
    return found
