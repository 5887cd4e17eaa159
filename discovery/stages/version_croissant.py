"""Croissant metadata of a dataset version as it lies in the store: its members table, without an export; for cards and catalogs of data sets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from discovery.core.croissant import Described, croissant
from discovery.spec import stored_spec
from discovery.types import DatasetVersion
from discovery.workspace import Workspace


def version_croissant(version: DatasetVersion, number: int, ws: Workspace, *, path: str = "members.parquet", license_url: str = "", url: str = "") -> dict[str, Any]:
    """The JSON-LD; see core.croissant.

    path: where the bytes of the version's file "table" lie beside the metadata, or their URL. number: of the version under its name. url: of a page about it.
    """
    members = ws.store.read_table(version)
    ref = version.file("table")
    columns = {one.name: kind for one in members.schema if (kind := _kind(one.type))}
    counts = Counter(members["split"].to_pylist())
    splits = [split for split in stored_spec(version.spec).splits if counts[split]]
    told = ", ".join(f"{counts[split]:,} {split}" for split in splits)
    return croissant(
        name=version.name, number=number, digest=version.digest, created_at=version.created_at, columns=columns, splits=splits, license_url=license_url, url=url,
        description=f"Dataset version {version.name}@{number}, digest {version.digest}: {len(members):,} pictures ({told}).",
        table=Described(path, ref.sha256, ref.size_bytes, "application/x-parquet"),
        cite_as=f"{version.name}@{number}, dataset version of digest {version.digest}, {version.created_at}",
    )  # fmt: skip


def _kind(kind: pa.DataType) -> str:
    """The word of core.croissant for a column's type; empty for what has none."""
    tests = {"text": pa.types.is_string, "whole": pa.types.is_integer, "number": pa.types.is_floating, "truth": pa.types.is_boolean}
    return next((word for word, is_it in tests.items() if is_it(kind)), "")
