"""Saved specs: collection specs kept in the store under their names, so that a form can offer them; every text that was saved stays on record."""

from __future__ import annotations

from discovery.addressing import content_id
from discovery.errors import InvalidInput, UnknownRecord, nearest
from discovery.saved_names import remember
from discovery.spec import CollectionSpec, parse_spec
from discovery.types import SavedSpec
from discovery.workspace import Workspace

KIND = "spec"  # of names in the catalog
LONGEST = 100_000  # characters of a spec


def save_spec(text: str, by: str, ws: Workspace, origin: str = "spec") -> SavedSpec:
    """Keep a spec under the name that it has; one that stands already is left as it is. Raises SpecError for a wrong one."""
    if len(text) > LONGEST:
        raise InvalidInput(f"{origin}: a spec has at most {LONGEST:,} characters, this one has {len(text):,}.")
    name = parse_spec(text, origin).name
    before = ws.catalog.get_name(KIND, name)
    if before is not None and (stands := ws.store.load_record(SavedSpec, before)) is not None and stands.text == text:
        return stands
    created_at = ws.clock()
    key = content_id([SavedSpec.stage, SavedSpec.version, name, text, by, created_at, before])
    made = ws.commit(SavedSpec(id=key, inputs=(), created_at=created_at, name=name, text=text, by=by))
    ws.catalog.set_name(KIND, name, made.id)
    remember_names(ws)
    return made


def saved_specs(ws: Workspace) -> list[SavedSpec]:
    """The spec that stands under each name, by name."""
    named = {one.name: one.record_id for one in ws.catalog.names() if one.kind == KIND}
    found = [ws.store.load_record(SavedSpec, record_id) for _, record_id in sorted(named.items())]
    return [record for record in found if record is not None]


def saved_spec(name: str, ws: Workspace) -> CollectionSpec:
    """The spec that stands under a name. Raises UnknownRecord with the nearest name."""
    known = {record.name: record for record in saved_specs(ws)}
    if name not in known:
        raise UnknownRecord(f"No spec is saved as {name!r}. {nearest(name, sorted(known)) if known else 'Save one: discovery specs save FILE.'}")
    return parse_spec(known[name].text, f"saved spec {name}")


def remember_names(ws: Workspace) -> None:
    """Let this machine know the names, for forms that are parsed without a catalog."""
    remember([one.name for one in ws.catalog.names() if one.kind == KIND], ws.config)
