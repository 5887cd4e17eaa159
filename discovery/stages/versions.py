"""Dataset versions by the names people use, and their members."""

from __future__ import annotations

import re

from discovery.errors import ConfigError, CorruptArtifact, UnknownRecord
from discovery.types import DatasetVersion
from discovery.workspace import Workspace

VERSION_NAME = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)@v?(?P<number>[0-9]+)")


def find_version(text: str, ws: Workspace) -> DatasetVersion:
    """A version by `name@number`, or by its id or a prefix. Raises UnknownRecord, or ConfigError for another form."""
    if match := VERSION_NAME.fullmatch(text):
        row = ws.catalog.get_version(match["name"], int(match["number"]))
        version = ws.store.load_record(DatasetVersion, row.version_id)
        if version is None:
            raise CorruptArtifact(f"Version {text} is in the catalog but not in the store. Run `discovery verify`.")
        return version
    if not re.fullmatch(r"[0-9a-f]{4,64}", text):
        raise ConfigError(f"{text!r} is not a version: expected name@number, such as photos@3.")
    record = ws.catalog.find_record(text)
    if not isinstance(record, DatasetVersion):
        raise UnknownRecord(f"{text} is a record of stage {record.stage}, not a dataset version.")
    return record


def member_ids(version: DatasetVersion, ws: Workspace) -> list[str]:
    """Ids of a version's members, ascending."""
    return sorted(ws.store.read_table(version, columns=["asset_id"])["asset_id"].to_pylist())
