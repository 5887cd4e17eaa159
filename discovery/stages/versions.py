"""Dataset versions by the names people use, where they stand, and their members."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from discovery.adapters.catalog import Catalog, StandingRow, VersionRow
from discovery.core.standing import CURRENT, Standing, with_newest
from discovery.errors import ConfigError, CorruptArtifact, InvalidInput, UnknownRecord, nearest
from discovery.types import DatasetVersion
from discovery.workspace import Workspace

VERSION_NAME = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)@(?:v?(?P<number>[0-9]+)|(?P<alias>[a-z][a-z0-9_-]*))")


def find_version(text: str, ws: Workspace) -> DatasetVersion:
    """A version by `name@number`, `name@alias`, or by its id or a prefix. Raises UnknownRecord, or ConfigError for another form.

    By its number or id a yanked version is found too; no alias points at one.
    """
    if VERSION_NAME.fullmatch(text):
        return version_of(find_row(text, ws), ws)
    if not re.fullmatch(r"[0-9a-f]{4,64}", text):
        raise ConfigError(f"{text!r} is not a version: expected name@number or name@alias, such as photos@3 or photos@current.")
    record = ws.catalog.find_record(text)
    if not isinstance(record, DatasetVersion):
        raise UnknownRecord(f"{text} is a record of stage {record.stage}, not a dataset version.")
    return record


def find_row(text: str, ws: Workspace) -> VersionRow:
    """The catalog's row of `name@number` or `name@alias`. Raises UnknownRecord, or ConfigError for another form."""
    match = VERSION_NAME.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is not a version: expected name@number or name@alias, such as photos@3 or photos@current.")
    if match["number"]:
        return ws.catalog.get_version(match["name"], int(match["number"]))
    aliases = standing_of(match["name"], ws).aliases
    if match["alias"] not in aliases:
        if not ws.catalog.versions(match["name"]):
            raise UnknownRecord(f"No collection {match['name']!r} has a version. `discovery versions` lists what there is.")
        hint = nearest(match["alias"], list(aliases)) if aliases else "It has none yet: `discovery promote NAME@N` makes a version current."
        raise UnknownRecord(f"Collection {match['name']} has no version {match['alias']!r}. {hint}")
    return ws.catalog.get_version(match["name"], aliases[match["alias"]])


def version_of(row: VersionRow, ws: Workspace) -> DatasetVersion:
    """The version of a catalog's row. CorruptArtifact when the store lost it."""
    version = ws.store.load_record(DatasetVersion, row.version_id)
    if version is None:
        raise CorruptArtifact(f"Version {row.name}@{row.number} is in the catalog but not in the store. Run `discovery verify`.")
    return version


def row_of(version: DatasetVersion, ws: Workspace) -> VersionRow | None:
    """The catalog's row of a version, with its number; None while it has none."""
    return next((row for row in ws.catalog.versions(version.name) if row.digest == version.digest), None)


def find_parent(text: str, ws: Workspace) -> DatasetVersion:
    """A version that others are to be made from. InvalidInput when it was yanked, with the reason, beside what `find_version` raises."""
    version = find_version(text, ws)
    if said := yank_of(version, ws):
        raise InvalidInput(f"{text} cannot be a parent: {said}. Choose another parent, such as {version.name}@{CURRENT}.")
    return version


def find_kept_out(text: str, ws: Workspace) -> DatasetVersion:
    """A version that nothing must leak into; a yanked one counts all the same, and is told."""
    version = find_version(text, ws)
    if said := yank_of(version, ws):
        ws.report(f"curate: nothing leaks into {text}, though {said}")
    return version


def yank_of(version: DatasetVersion, ws: Workspace) -> str:
    """By whom, when and why a version was yanked; empty when it was not."""
    row = row_of(version, ws)
    yank = standing_of(version.name, ws).yanked.get(row.number) if row else None
    return f"it was yanked by {yank.by} on {yank.at}: {yank.reason}" if yank else ""


def parent_of(version: DatasetVersion, ws: Workspace) -> DatasetVersion | None:
    """The version it grew from, as the name was understood when it was made; a name may point elsewhere since."""
    if not json.loads(version.spec).get("parent"):
        return None
    found = (ws.store.load_record(DatasetVersion, key) for key in version.inputs)
    return next((record for record in found if record is not None), None)  # the parent is entered before those it must not leak into


def kept_out_of(version: DatasetVersion, ws: Workspace) -> dict[str, DatasetVersion]:
    """What a version must not leak into, by the name that its spec has for it, as that name was understood when it was made."""
    parent = parent_of(version, ws)
    known = [record for key in version.inputs if (record := ws.store.load_record(DatasetVersion, key)) is not None]
    found = {}
    for text in json.loads(version.spec)["must_not_leak_into"]:
        match = VERSION_NAME.fullmatch(text)
        if match is None or match["number"]:
            found[text] = find_version(text, ws)  # a number means the same for ever
            continue
        named = [record for record in known if record.name == match["name"]]
        others = [record for record in named if parent is None or record.id != parent.id]
        found[text] = (others or named)[0]
    return found


def standing_of(name: str, ws: Workspace) -> Standing:
    """The aliases and yanks of a collection; its newest version is the candidate as soon as it has a number."""
    return standing_in(name, ws.catalog)


def standing_in(name: str, catalog: Catalog) -> Standing:
    """The same, out of a catalog alone."""
    said = catalog.standing(name)
    newest = max((row.number for row in catalog.versions(name)), default=0)
    return with_newest(Standing.from_json(said.body) if said else Standing(), newest)


def move(name: str, step: Callable[[Standing], Standing], what: str, by: str, ws: Workspace) -> Standing:
    """Take a step from where a collection stands, and keep who took it; a step that changes nothing is not kept. Atomic.

    Raises what the step raises; UnknownRecord for a collection without versions.
    """
    if not ws.catalog.versions(name):
        raise UnknownRecord(f"No collection {name!r} has a version. `discovery versions` lists what there is.")
    while True:
        said = ws.catalog.standing(name)
        now = standing_of(name, ws)
        after = step(now)
        if after == now:
            return now
        row = StandingRow(name, said.number + 1 if said else 1, after.to_json(), what, by, ws.clock())
        if ws.catalog.add_standing(row):
            return after


def member_ids(version: DatasetVersion, ws: Workspace) -> list[str]:
    """Ids of a version's members, ascending."""
    return sorted(ws.store.read_table(version, columns=["asset_id"])["asset_id"].to_pylist())
