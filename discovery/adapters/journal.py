"""The journal: what is said beyond the records, as numbered entries in the store, each written once; the catalog has most of it.

    journal/<topic>/<sha256 of the name>/<number>.json

    heads       an encoder             the index snapshots that were its current ones
    names       a kind and a name      the records it pointed at
    versions    a collection           its dataset versions, by number
    runs        a version              where it was published
    standings   a collection           its aliases and yanked versions, each time one of them changes
    shown       a thing in MLflow      the ids under which MLflow has it: of two that are made at once, the one entered; not in the catalog

Creating is exclusive, so a number is taken once, whichever catalog asks: two catalogs of one store never give one number to two things.
The catalog can be lost; the journal and the records bring it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from discovery.adapters.files import Files
from discovery.addressing import canonical_json, sha256_hex
from discovery.errors import CorruptArtifact

FOLDER = "journal"
Value = Mapping[str, str]


class Topic(StrEnum):
    """What is spoken of, in the order in which a catalog takes it in."""

    HEADS = "heads"
    NAMES = "names"
    VERSIONS = "versions"
    RUNS = "runs"
    STANDINGS = "standings"
    SHOWN = "shown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: the `number`th thing that was said about `name`."""

    topic: Topic
    name: str
    number: int
    value: Value


class Journal:
    """The entries under one root."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def claim(self, topic: Topic, name: str, number: int, value: Value) -> Value:
        """Write an entry unless its number is taken; the value that stands, ours or the first writer's."""
        path = _path(topic, name, number)
        body = canonical_json({"topic": topic, "name": name, "number": number, "value": dict(value)})
        return value if self.files.create(path, body.encode()) else self._read(path).value

    def get(self, topic: Topic, name: str, number: int) -> Value | None:
        """The value of an entry, or None when nothing was said."""
        try:
            return self._read(_path(topic, name, number)).value
        except FileNotFoundError:
            return None

    def entries(self) -> Iterator[Entry]:
        """Every entry, topic by topic, each name's in the order of their numbers. Raises CorruptArtifact."""
        paths = [entry.path for entry in self.files.walk(FOLDER)]
        found = [self._read(path) for path in paths]
        order = list(Topic)
        yield from sorted(found, key=lambda entry: (order.index(entry.topic), entry.name, entry.number))

    def _read(self, path: str) -> Entry:
        try:
            found = json.loads(self.files.read(path))
            entry = Entry(Topic(found["topic"]), found["name"], int(found["number"]), dict(found["value"]))
            is_its_place = path == _path(entry.topic, entry.name, entry.number)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptArtifact(f"{path} is no entry of the journal: {error}. Restore it from a backup.") from error
        if not is_its_place:
            raise CorruptArtifact(f"{path} holds an entry of another place. Restore it from a backup.")
        return entry


def _path(topic: Topic, name: str, number: int) -> str:
    return f"{FOLDER}/{topic}/{sha256_hex(name.encode())}/{number}.json"  # a name may hold anything, so it is not in the path
