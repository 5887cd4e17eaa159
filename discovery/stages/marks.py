"""Marks: what people say of single assets, with who and when; the last one stands, and all are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from discovery.adapters.catalog import Catalog
from discovery.addressing import content_id, is_content_id
from discovery.errors import ConfigError, InvalidInput, nearest
from discovery.types import Mark
from discovery.workspace import Workspace

EXPECTED, NOVEL, JUNK, NONE = "expected", "novel", "junk", "none"
MARKS = (EXPECTED, NOVEL, JUNK, NONE)
KIND = "mark"  # of names in the catalog
LONGEST_COMMENT = 1000  # characters


def mark(assets: Sequence[str], what: str, by: str, ws: Workspace, *, report_id: str = "", comment: str = "") -> list[Mark]:
    """Mark assets, given by their whole ids (`find_asset` finds them); a mark that stands already is left as it is.

    what: `expected` (its like is no news: it is in every later reference), `novel` (its like is wanted: it stays out of references), `junk` (it
    should not be there: it stays out of references and is quarantined by the next check), `none` (as if never marked). by: who says so. Raises
    ConfigError for another mark, InvalidInput without a name or for what is no id.
    """
    if what not in MARKS:
        raise ConfigError(f"{what!r} is no mark: expected one of {', '.join(MARKS)}. {nearest(what, list(MARKS))}")
    if not by.strip() or len(comment) > LONGEST_COMMENT:
        raise InvalidInput(f"A mark needs the name of who makes it, and a comment of {LONGEST_COMMENT} characters at most.")
    if wrong := [text for text in assets if not is_content_id(text)]:
        raise InvalidInput(f"{wrong[0][:80]!r} is no whole id of an asset.")
    return [_mark(asset_id, what, by.strip(), report_id, comment, ws) for asset_id in dict.fromkeys(assets)]


def standing_marks(catalog: Catalog) -> dict[str, Mark]:
    """asset_id to the mark that stands; assets without one are not in it."""
    records = {record.id: record for record in catalog.records(Mark.stage) if isinstance(record, Mark)}
    named = {name.name: records[name.record_id] for name in catalog.names() if name.kind == KIND and name.record_id in records}
    return {asset_id: one for asset_id, one in sorted(named.items()) if one.mark != NONE}


def said_of(asset_id: str, catalog: Catalog) -> list[Mark]:
    """All that was ever said of an asset, newest first."""
    return [record for record in catalog.records(Mark.stage) if isinstance(record, Mark) and record.asset_id == asset_id]


def _mark(asset_id: str, what: str, by: str, report_id: str, comment: str, ws: Workspace) -> Mark:
    before = ws.catalog.get_name(KIND, asset_id)
    if before is not None:
        stands = ws.store.load_record(Mark, before)
        if stands is not None and (stands.mark, stands.by, stands.comment) == (what, by, comment):
            return stands
    created_at = ws.clock()
    key = content_id([Mark.stage, Mark.version, asset_id, what, by, comment, report_id, created_at, before])
    inputs = (report_id,) if report_id else ()
    made = ws.commit(Mark(id=key, inputs=inputs, created_at=created_at, asset_id=asset_id, mark=what, by=by, comment=comment, report_id=report_id))
    ws.catalog.set_name(KIND, asset_id, made.id)
    return made


def ids_marked(marks: dict[str, Mark], *kinds: str) -> np.ndarray:
    """(n,) S64, ascending, of the assets with one of these marks."""
    return np.array(sorted(asset_id for asset_id, one in marks.items() if one.mark in kinds), "S64")
