"""How much of what a collection is chosen from has changed since its newest version, so that a refresh can leave small changes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discovery import schemas
from discovery.adapters.catalog import VersionRow
from discovery.spec import CollectionSpec, stored_spec
from discovery.stages.curate import candidate_ids
from discovery.stages.decisions import CANDIDATE_RULES
from discovery.types import CollectionReport, DatasetVersion
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class CollectionChange:
    """Candidates that came and went since the version `previous` (name@number, empty for none), of how many it had; whether the spec is another.

    is_checked: whether `previous` was checked; one that was not is of a run that broke off."""

    previous: str
    candidates: int
    came: int
    went: int
    is_other_spec: bool
    is_checked: bool = False

    @property
    def share(self) -> float:
        """Of the candidates there were, how many came or went; infinite without a version, or when the spec is another."""
        if not self.previous or self.is_other_spec or not self.candidates:
            return float("inf")
        return (self.came + self.went) / self.candidates

    @property
    def sentence(self) -> str:
        """The change in words."""
        if not self.previous:
            return "there is no version yet"
        if self.is_other_spec:
            return f"the spec is not that of {self.previous} any more"
        return f"since {self.previous}, {self.came:,} candidates came and {self.went:,} went, of {self.candidates:,} ({self.share:.1%})"


def collection_change(spec: CollectionSpec, ws: Workspace) -> CollectionChange:
    """Compare the candidates that a spec has now with those of the newest version that it made, or else of the newest one.

    A version from before decisions were kept counts as none. Raises as `curate`.
    """
    newest_first = sorted(ws.catalog.versions(spec.name), key=lambda row: -row.number)  # a version may have been prepared long before it was numbered
    newest: tuple[VersionRow, DatasetVersion] | None = None
    same: tuple[VersionRow, DatasetVersion] | None = None
    for row in newest_first:  # a file each, so no more of them than are needed
        version = ws.store.load_record(DatasetVersion, row.version_id)
        if version is not None and any(ref.role == "decisions" for ref in version.files):
            newest = newest or (row, version)
            if stored_spec(version.spec).identity() == spec.identity():
                same = row, version
                break
    if newest is None:
        return CollectionChange("", 0, 0, 0, False)
    row, version = same or newest
    table = ws.store.read_table(version, "decisions", columns=["asset_id", "rule"])
    before = schemas.ids_of(table.filter(pc.is_in(table["rule"], pa.array(CANDIDATE_RULES)))["asset_id"])
    now = candidate_ids(spec, ws) if same else before
    came, went = len(np.setdiff1d(now, before)), len(np.setdiff1d(before, now))
    is_checked = any(isinstance(one, CollectionReport) and one.version_id == version.id for one in ws.catalog.records(CollectionReport.stage))
    return CollectionChange(f"{row.name}@{row.number}", len(before), came, went, same is None, is_checked)
