"""Arrow schemas of the tables; ids and what belongs to them stay in one file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ID = pa.string()  # 64 hex digits; hex, so that every tool that opens the Parquet can read it

METADATA = pa.schema(  # what adapters.metadata.Metadata says of each
    [
        pa.field("taken_at", pa.timestamp("ms")),  # the camera's clock, without zone
        pa.field("taken_offset_min", pa.int16()),
        pa.field("camera_make", pa.string()),
        pa.field("camera_model", pa.string()),
        pa.field("lens_model", pa.string()),
        pa.field("exposure_s", pa.float64()),
        pa.field("f_number", pa.float64()),
        pa.field("iso", pa.int32()),
        pa.field("focal_length_mm", pa.float64()),
        pa.field("flash_fired", pa.bool_()),
        pa.field("gps_latitude_deg", pa.float64()),
        pa.field("gps_longitude_deg", pa.float64()),
        pa.field("gps_altitude_m", pa.float64()),
        pa.field("color_profile", pa.string()),
    ]
)

MANIFEST = pa.schema(
    [
        pa.field("object_uri", pa.string(), nullable=False),  # what the source lists; holds several rows when it is an archive
        pa.field("object_bytes", pa.int64(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),  # the row's own address; that of the object unless it is inside one
        pa.field("asset_id", ID),  # null for a rejection
        pa.field("reason", pa.string()),  # one of types.Reason; null for an asset
        pa.field("detail", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("modified_at", pa.string()),  # of the object, as the source lists it
        pa.field("etag", pa.string()),  # empty for local files
        pa.field("format", pa.string()),
        pa.field("width_px", pa.int32()),  # after EXIF orientation
        pa.field("height_px", pa.int32()),
        pa.field("orientation", pa.int8()),  # EXIF 1..8
        *METADATA,
        pa.field("video_id", ID),  # SHA-256 of the video that an asset is a frame of
        pa.field("frame_s", pa.float64()),  # seconds from the start of that video
        pa.field("capture", pa.string()),  # what one press of the shutter gave several files of; null when it gave one
        pa.field("burst", pa.string()),  # pictures in quick succession; null for single ones
        pa.field("pixel_sha256", pa.string()),  # decoded, oriented, on white, RGB
        pa.field("folder", pa.string()),  # last folder of the URI; a label in many corpora
        pa.field("attributes", pa.string()),  # JSON object of what lists and sidecars say besides; null without
        pa.field("sidecar", pa.string()),  # JSON object; this row is no picture, but says that of one
    ]
)

READ_ROWS = pa.schema([*MANIFEST, pa.field("is_new", pa.bool_(), nullable=False)])  # while they are on their way into a manifest

REMOVED = pa.schema([pa.field("source_uri", pa.string(), nullable=False), pa.field("asset_id", ID, nullable=False)])

MEASURES_COMMON = [
    pa.field("asset_id", ID, nullable=False),
    pa.field("pdq_hash", pa.binary(32), nullable=False),
    pa.field("pdq_quality", pa.int32(), nullable=False),
    pa.field("luma_16", pa.binary(256), nullable=False),  # 16 x 16 means, row by row
]
PICTURE = pa.field("picture_64", pa.binary(12288), nullable=False)  # core.measures.small_picture; in the shards, not in quality reports


def measures(names: list[str]) -> pa.Schema:
    """One row an asset: what finds copies, what confirms them, then one float64 column a measure."""
    return pa.schema([*MEASURES_COMMON, PICTURE, *(pa.field(name, pa.float64(), nullable=False) for name in names)])


def embeddings(dim: int, value: pa.DataType | None = None) -> pa.Schema:
    """One row an asset: id and L2-normalised vector of float32, or of another float type."""
    return pa.schema([pa.field("asset_id", ID, nullable=False), pa.field("vector", pa.list_(value or pa.float32(), dim), nullable=False)])


def ids_of(column: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """(n,) S64 of a column of asset ids."""
    return np.asarray(column.to_numpy().astype("S64"), "S64") if len(column) else np.zeros(0, "S64")


def id_column(ids: NDArray[np.bytes_]) -> pa.Array:
    """A column of (n,) S64 whole ids, without an object for each. The inverse of `ids_of`."""
    data = pa.py_buffer(np.ascontiguousarray(ids, "S64"))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(64), len(ids), [None, data]).cast(pa.binary()).cast(pa.string())


def embedding_table(asset_ids: Sequence[str], vectors: NDArray[np.floating]) -> pa.Table:
    """The table of (n, dim) vectors, in their own float type."""
    value = pa.from_numpy_dtype(vectors.dtype)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1), value), vectors.shape[1])
    return pa.Table.from_arrays([pa.array(asset_ids, ID), flat], schema=embeddings(vectors.shape[1], value))


REGIONS = pa.schema(  # one row an asset
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("width_px", pa.int32(), nullable=False),  # of the upright original
        pa.field("height_px", pa.int32(), nullable=False),
        pa.field("rows", pa.int16(), nullable=False),  # of its grid of cells
        pa.field("columns", pa.int16(), nullable=False),
        pa.field("vectors", pa.binary(), nullable=False),  # int8, dim a window of the grid, window after window; as lists they read 60 times slower
    ]
)


def projection(dim: int) -> pa.Schema:
    """The mean of the reference, then an axis a row, descending variance; the mean has none."""
    return pa.schema([pa.field("variance", pa.float64()), pa.field("vector", pa.list_(pa.float32(), dim), nullable=False)])


QUALITY = pa.schema(
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("is_quarantined", pa.bool_(), nullable=False),
        pa.field("failed", pa.list_(pa.string()), nullable=False),  # expectations this asset failed
    ]
)

DUPLICATES = pa.schema(
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("group_id", ID, nullable=False),  # of the group: stays while the group grows, whoever its keeper is
        pa.field("keeper_id", ID, nullable=False),  # asset_id of the group's keeper
        pa.field("component_id", ID, nullable=False),  # smallest asset_id connected by any chain of copies
        pa.field("pixel_keeper", ID, nullable=False),  # smallest asset_id with the same pixels
        pa.field("relation", pa.string(), nullable=False),  # single | keeper, or to the keeper: one of core.relations.RELATIONS
        pa.field("transformation", pa.string(), nullable=False),  # how the keeper became this one, in words; empty where there is none
        pa.field("kept_because", pa.string(), nullable=False),  # why the keeper is kept; empty for all others
        pa.field("source_rows", pa.int32(), nullable=False),  # how many listed rows hold these bytes
        pa.field("pdq_distance", pa.int32()),  # to the keeper, bits
        pa.field("cosine", pa.float32()),  # similarity to the keeper
        pa.field("luma_correlation", pa.float32()),  # of luma, laid on the keeper's; null for single ones and keepers
        pa.field("difference", pa.float32()),  # what of both is not explained, 0 is equal; null for single ones and keepers
    ]
)

PAIRS = pa.schema(  # verified copies, asset_a < asset_b; the geometry is that of core.alignment.Alignment
    [
        pa.field("asset_a", ID, nullable=False),
        pa.field("asset_b", ID, nullable=False),
        pa.field("relation", pa.string(), nullable=False),  # one of core.relations.RELATIONS
        pa.field("pdq_distance", pa.int32(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),
        pa.field("luma_correlation", pa.float32(), nullable=False),
        pa.field("difference", pa.float32(), nullable=False),
        pa.field("direction", pa.string(), nullable=False),  # whole | part (b is a part of a) | frame (a is a part of b)
        pa.field("turn", pa.string(), nullable=False),  # of b, onto a: one of core.grid.TURNS
        pa.field("left", pa.float32(), nullable=False),  # of the part in the whole, in shares of its sides
        pa.field("top", pa.float32(), nullable=False),
        pa.field("width", pa.float32(), nullable=False),
        pa.field("height", pa.float32(), nullable=False),
        pa.field("surround", pa.float32(), nullable=False),
        pa.field("gamma", pa.float32(), nullable=False),
        pa.field("gain", pa.float32(), nullable=False),
        pa.field("offset", pa.float32(), nullable=False),
        pa.field("is_grey", pa.bool_(), nullable=False),
        pa.field("is_captioned", pa.bool_(), nullable=False),
    ]
)

AUDIT = pa.schema(  # what a recall audit measured, kept so that the next one need not
    [
        pa.field("content", pa.string(), nullable=False),  # a segment, with a hash of what of it is removed
        pa.field("asset_id", ID, nullable=False),  # the query
        pa.field("ef", pa.int32(), nullable=False),  # 0: exact
        pa.field("distances", pa.list_(pa.float32(), 10), nullable=False),  # of its nearest in that segment, itself left out
    ]
)

TOMBSTONES = pa.schema([pa.field("asset_id", ID, nullable=False)])

NOVELTY = pa.schema(
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("novelty", pa.float32()),  # higher is more novel; null without a reference
        pa.field("percentile", pa.float32()),  # of the calibration rows that are less novel, in [0, 100]
        pa.field("p_value", pa.float64()),
        pa.field("q_value", pa.float64()),
        pa.field("is_novel", pa.bool_(), nullable=False),
        pa.field("theme", pa.int32()),  # of the novel: number in the table of themes
        pa.field("density", pa.float32()),  # higher is lonelier than its neighbours; null where it was not asked for
        pa.field("rare_q_value", pa.float64()),
        pa.field("is_rare", pa.bool_(), nullable=False),  # and not novel
        pa.field("nearest", pa.list_(ID), nullable=False),  # references, nearest first
        pa.field("nearest_distance", pa.list_(pa.float32()), nullable=False),
    ]
)

THEMES = pa.schema(  # groups among the novel, the largest first
    [
        pa.field("theme", pa.int32(), nullable=False),
        pa.field("exemplar", ID, nullable=False),  # the one in the middle
        pa.field("assets", pa.int32(), nullable=False),
        pa.field("words", pa.list_(pa.string()), nullable=False),  # folders and labels that it has more of than the batch
        pa.field("word_assets", pa.list_(pa.int32()), nullable=False),  # how many of its assets have each
    ]
)

CALIBRATION = pa.schema(  # the most novel of the rows that were held out
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("novelty", pa.float32(), nullable=False),
        pa.field("is_far_out", pa.bool_(), nullable=False),
    ]
)

LACKING = pa.schema(  # what one of two sets has and the other lacks, farthest first within a theme
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("held_by", pa.string(), nullable=False),  # a | b: the set that has it
        pa.field("theme", pa.int32(), nullable=False),  # 0 is the largest of that set
        pa.field("is_exemplar", pa.bool_(), nullable=False),  # one a theme
        pa.field("distance", pa.float32(), nullable=False),  # to the nearest asset of the other set
        pa.field("nearest", ID, nullable=False),  # that asset
    ]
)

MEMBERS = pa.schema(
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("width_px", pa.int32(), nullable=False),
        pa.field("height_px", pa.int32(), nullable=False),
        pa.field("group_id", ID, nullable=False),
        pa.field("component_id", ID, nullable=False),
        pa.field("report_id", ID, nullable=False),  # the quality report it passed
        pa.field("novelty", pa.float32()),
        pa.field("reason", pa.string(), nullable=False),  # why it is in
        pa.field("pick", pa.int32(), nullable=False),  # order of selection, 0 first; -1 from the parent
        pa.field("gain", pa.float64()),
        pa.field("category", pa.string()),  # of its folder
        pa.field("part", pa.string()),  # of the mix; empty without one
    ]
)

DECISIONS = pa.schema(  # of every asset that a version was chosen from, ascending by asset_id: what decided
    [
        pa.field("asset_id", ID, nullable=False),
        pa.field("is_member", pa.bool_(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),  # one of stages.decisions.RULES
        pa.field("part", pa.string(), nullable=False),  # of the mix; empty without one
        pa.field("evidence", ID),  # another asset by which it was decided
        pa.field("value", pa.float64()),  # what it had, and
        pa.field("threshold", pa.float64()),  # what it would have needed; what both are says the rule
        pa.field("stage", pa.string(), nullable=False),  # that found the evidence
        pa.field("record_id", pa.string(), nullable=False),  # in which it is; empty for the version itself
        pa.field("linked_by", pa.string(), nullable=False),  # the column by which it belongs together with the evidence; empty where that did not decide
    ]
)

FINDINGS = pa.schema(  # what a collection check points at
    [
        pa.field("kind", pa.string(), nullable=False),  # one of stages.check_collection.KINDS
        pa.field("asset_id", ID, nullable=False),
        pa.field("other_id", ID),  # the picture that it is told with, where there is one
        pa.field("value", pa.float64()),  # by which findings of a kind are ordered
        pa.field("detail", pa.string(), nullable=False),
    ]
)
