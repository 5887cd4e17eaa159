"""Croissant metadata of a version without an export is valid, and its records are the members."""

from __future__ import annotations

import json
from pathlib import Path

import mlcroissant

from discovery.stages.export_rows import find_numbered
from discovery.stages.version_croissant import version_croissant
from discovery.workspace import Workspace


def test_metadata_beside_the_members_table_is_valid_and_its_records_are_the_members(ws: Workspace, tmp_path: Path) -> None:
    version, number = find_numbered("photos@1", ws)
    (tmp_path / "members.parquet").write_bytes(ws.store.read_file(version, "table"))
    told = version_croissant(version, number, ws, license_url="https://creativecommons.org/publicdomain/zero/1.0/", url="https://example.org/photos")
    (tmp_path / "croissant.json").write_text(json.dumps(told))
    opened = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert set(opened.metadata.issues.warnings) == set()
    assert opened.metadata.version == f"{number}.0.0+{version.digest}"
    found = {one["members/asset_id"].decode(): one["members/split"].decode() for one in opened.records("members-table")}
    assert found == {row["asset_id"]: row["split"] for row in ws.store.read_table(version).to_pylist()}
    assert [one["splits/name"] for one in opened.records("splits")] == [split for split in ("test", "train") if split in found.values()]
