"""Ids and vectors in one Arrow file that is mapped into memory: opening it reads nothing, and a row is a place in it.

Parquet, which everything else is kept in, has to be decoded as a whole before a vector can be looked at. Arrow's own file format
(https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format) is the same table as it lies in memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.files import translated
from discovery.core.draws import ID_DIGITS
from discovery.errors import CorruptArtifact, InvalidInput


def write_vectors(path: Path, ids: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
    """Write ids (n,) S64, strictly ascending, and vectors (n, d) float32. Equal input gives equal bytes with one pyarrow version.

    Raises InvalidInput when they are of unlike length or the ids do not ascend; StorageFull.
    """
    if ids.dtype.itemsize != ID_DIGITS or vectors.ndim != 2 or len(ids) != len(vectors) or (ids[:-1] >= ids[1:]).any():
        raise InvalidInput(f"Expected ascending ids, and as many vectors; found {ids.shape} {ids.dtype} and {vectors.shape}.")
    offsets = pa.py_buffer(np.arange(len(ids) + 1, dtype=np.int32) * ID_DIGITS)
    column = pa.StringArray.from_buffers(len(ids), offsets, pa.py_buffer(np.ascontiguousarray(ids)))
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    schema = schemas.embeddings(vectors.shape[1])
    batch = pa.RecordBatch.from_arrays([column, pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])], schema=schema)
    with translated(f"Writing {path}"), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def open_vectors(path: Path, rows: int, dim: int) -> tuple[NDArray[np.bytes_], NDArray[np.float32]]:
    """Ids (n,) S64 ascending and vectors (n, d) float32, both read-only views of the file. Raises CorruptArtifact."""
    try:
        with translated(f"Reading {path}"):
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batch = reader.get_batch(0)
    except (pa.ArrowException, IndexError) as error:
        raise CorruptArtifact(f"{path.name} is no Arrow file of vectors ({error}). Run `discovery verify`.") from error
    if not reader.schema.equals(schemas.embeddings(dim)) or len(batch) != rows or reader.num_record_batches != 1:
        raise CorruptArtifact(f"{path.name} does not hold {rows:,} vectors of width {dim}. Run `discovery verify`.")
    names, column = batch.column(0), batch.column(1)
    offsets = np.frombuffer(names.buffers()[1], np.int32)[: rows + 1]
    if (offsets != np.arange(rows + 1, dtype=np.int64) * ID_DIGITS).any():
        raise CorruptArtifact(f"{path.name} has ids that are no SHA-256. Run `discovery verify`.")
    ids = np.frombuffer(names.buffers()[2], f"S{ID_DIGITS}")[:rows]
    vectors = column.flatten().to_numpy(zero_copy_only=True).reshape(rows, dim)
    return ids, vectors
