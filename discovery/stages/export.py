"""Export: a dataset version as files that training code opens, whole and checked, begun anew or gone on with where it was left."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from discovery.adapters.decode import Undecodable
from discovery.adapters.export_target import ExportTarget, open_target
from discovery.adapters.exports import FORMATS
from discovery.adapters.exports.format import Format
from discovery.adapters.exports.listing import COLUMNS, MEMBERS, members_csv, read_members
from discovery.adapters.in_order import in_order
from discovery.adapters.reencode import reencode
from discovery.addressing import canonical_json, file_sha256, sha256_hex
from discovery.core.croissant import Described, croissant
from discovery.core.export_plan import Example, ExportOptions, ExportPlan, Made, classes_of, cut, expected_bytes, same_names
from discovery.errors import ConfigError, CorruptArtifact, MembersLost, SourceChanged, SourceNotFound, nearest
from discovery.stages.export_notes import note_of
from discovery.stages.export_rows import find_numbered, members_of
from discovery.stages.shards import read_asset
from discovery.stages.versions import yank_of
from discovery.workspace import Workspace

MARKER = "discovery-export.json"  # written last: its presence says that the export is complete
SUMS = "SHA256SUMS"
CROISSANT = "croissant.json"
SPEC = "spec.yaml"
STATE = ".discovery-export"  # what a run that goes on needs to know; gone from a complete export
OURS = (MEMBERS, SPEC, CROISSANT, SUMS, MARKER)  # of every format
CLAIM, BEFORE = f"{STATE}/plan.json", f"{STATE}/before.json"
BLOCK = 500  # pictures of one entry in the state, for formats of a file a picture
BUFFER_BYTES = 256 * 2**20  # of pictures that were read and not yet written
NAMED = 5  # lost members that an error names
MEDIA = {".csv": "text/csv", ".json": "application/json", ".jsonl": "application/jsonl", ".md": "text/markdown", ".parquet": "application/x-parquet",
         ".tar": "application/x-tar", ".yaml": "application/yaml"}  # fmt: skip
LOST = (FileNotFoundError, CorruptArtifact, SourceNotFound, SourceChanged, Undecodable)


@dataclass(frozen=True, slots=True)
class Exported:
    """A complete export. files and bytes: all that it holds. resumed: files that were there already and have the right hash; replaced: files
    that were changed since they were written, and were made again. note: what its readers must know; often empty.
    """

    version: str
    digest: str
    format: str
    out: str
    files: int
    bytes: int
    resumed: int
    replaced: int
    label: str
    classes: int
    unlabelled: int
    splits: dict[str, int]
    note: str


@dataclass(frozen=True, slots=True)
class _File:
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Unit:
    """A shard, whose path it is, or a block of pictures that are files of their own."""

    name: str
    places: range
    shard: str = ""


@dataclass
class _Known:
    """What earlier runs recorded: files, and what became of the examples of finished units. has_rows: members.csv can be read and is the plan's."""

    files: dict[str, _File] = field(default_factory=dict)
    made: dict[str, list[Made]] = field(default_factory=dict)
    has_rows: bool = False


def plan_export(version: str, format_name: str, ws: Workspace, options: ExportOptions) -> ExportPlan:
    """What an export of a version holds.

    Raises ConfigError for an unknown format, form or label, and for splits whose names the format cannot tell apart; UnknownRecord for an unknown version.
    """
    if format_name not in FORMATS:
        raise ConfigError(f"There is no format {format_name!r}. {nearest(format_name, list(FORMATS))}")
    if options.form not in ("original", "jpeg", "png"):
        raise ConfigError(f"Pictures cannot be written as {options.form!r}: original, jpeg or png.")
    if options.shard_bytes < 1 or options.shard_examples < 1:
        raise ConfigError("The limits of a shard are at least 1.")
    record, number = find_numbered(version, ws)
    found = members_of(record, options.label, ws, with_boxes=FORMATS[format_name].has_boxes)
    yanked = yank_of(record, ws)
    notes = (*((f"{record.name}@{number} should not be trained on: {yanked}.",) if yanked else ()), *found.notes)
    plan = ExportPlan(
        record.name, number, record.digest, record.created_at, record.spec, format_name, options, found.label_column, found.splits, classes_of(found.examples),
        found.examples, notes=notes,
    )  # fmt: skip
    _check_names(plan)
    return plan


def _check_names(plan: ExportPlan) -> None:
    """Raises ConfigError when two splits would have one name, or one that of a file of ours."""
    form = FORMATS[plan.format]
    if form.split_name is None:
        return
    names = {f"split {split!r}": form.split_name(split) for split in plan.splits}
    if form.place is not None:  # splits are folders beside the files that describe them
        names |= {f"file {path}": path for path in (*form.names(plan), *OURS)}
    for one, other, *_ in same_names(names):
        raise ConfigError(
            f"{plan.version} cannot be exported as {plan.format}: {one} and {other} would have one name there, {names[one]!r} (disks that ignore case take "
            f"{names[one].casefold()!r} for it). Give the split another name in the spec and curate again, or choose another format."
        )


def export(version: str, format_name: str, out: str, ws: Workspace, options: ExportOptions | None = None) -> Exported:
    """Write a version to `out`, a folder or s3://bucket/prefix, in one of adapters.exports.FORMATS; the same bytes whenever it is done.

    What is there with the right hash is kept, so that a killed export goes on and a complete one is checked; a file of it that was changed is made
    again; files of others are left alone. Raises ConfigError when `out` holds another export, or files of others where ours go; MembersLost,
    when all else is written, for members whose bytes are gone or changed.
    """
    plan = plan_export(version, format_name, ws, options or ExportOptions())
    target = open_target(out, ws.config.s3, ws.config.root)
    with target.held():
        return _Run(plan, target, ws).run()


class _Run:
    """One export under way."""

    def __init__(self, plan: ExportPlan, target: ExportTarget, ws: Workspace) -> None:
        self.plan, self.target, self.ws = plan, target, ws
        self.format: Format = FORMATS[plan.format]
        self.lock = threading.Lock()
        self.resumed: set[str] = set()
        self.replaced: set[str] = set()
        self.right: set[str] = set()  # files that were read and have the hash that was recorded
        self.files: dict[str, _File] = {}  # of the whole export
        self.lost: dict[str, str] = {}
        self.done = self.done_bytes = 0
        self.told_s = time.monotonic()
        self.units = list(self._units())

    def run(self) -> Exported:
        started = time.time()
        there = self.target.sizes()
        known, is_complete = self._claim(there)
        if is_complete and self._is_right(known, there):
            left = [path for path in there if path.startswith(f"{STATE}/")]  # by a run that was killed when it had said that all is there
            for path in sorted(left, key=lambda path: -path.count("/")):
                self.target.remove(path)
        else:
            claimed = self.target.files.stat(CLAIM)
            if claimed is not None:
                self.target.sweep(claimed.changed, started)
            made = [one for unit in self.units for one in self._unit(unit, known, there)]
            if self.lost:
                raise self._lost()
            if self.format.place is None and self.format.pack is None:
                made = self._where_they_are()
            self._finish(made, known, there)
        plan = self.plan
        counts = Counter(example.split for example in plan.examples)
        return Exported(
            plan.version, plan.digest, plan.format, self.target.uri, len(self.files), sum(one.size_bytes for one in self.files.values()),
            len(self.resumed), len(self.replaced), plan.label_column, len(plan.classes), sum(example.label is None for example in plan.examples),
            {split: counts[split] for split in plan.splits}, note_of(plan, self.format),
        )  # fmt: skip

    def _units(self) -> Iterator[_Unit]:
        plan, shard = self.plan, self.format.shard
        if shard is not None:
            for split in plan.splits:
                places = plan.of_split(split)
                sizes = [expected_bytes(plan.examples[place], plan.options.form) for place in places]
                parts = cut(sizes, plan.options.shard_bytes, plan.options.shard_examples)
                for number, part in enumerate(parts):
                    path = shard(split, number, len(parts))
                    yield _Unit(sha256_hex(path.encode())[:16], range(places.start + part.start, places.start + part.stop), path)
            return
        if self.format.place is not None:
            for start in range(0, len(plan.examples), BLOCK):
                yield _Unit(f"{start:09d}", range(start, min(start + BLOCK, len(plan.examples))))

    def _path(self, place: int) -> str:
        assert self.format.place is not None
        return self.format.place(self.plan.examples[place], self.plan)

    # whose place it is

    def _claim(self, there: dict[str, int]) -> tuple[_Known, bool]:
        """Make sure that the place is ours; what earlier runs recorded, and whether they completed it."""
        marker = _json(self.target.read(MARKER), f"{self.target.uri}/{MARKER}") if MARKER in there else None
        claim = _json(self.target.read(CLAIM), f"{self.target.uri}/{CLAIM}") if CLAIM in there else None
        for found in (one for one in (marker, claim) if one is not None):
            if found.get("plan") != self.plan.id:
                raise self._another(found, marker is not None)
        planned = [path for unit in self.units for path in ([unit.shard] if unit.shard else map(self._path, unit.places))]
        ours = {*planned, *self.format.names(self.plan), *OURS}
        folders = {path.split("/")[0] for path in ours if "/" in path}
        strangers = [path for path in there if path not in ours and path.split("/")[0] in folders]
        if marker is None and claim is None:
            strangers += [path for path in there if path in ours]
        if strangers:
            raise ConfigError(
                f"{self.target.uri} holds {len(strangers)} files of others where the export goes, first {min(strangers)}. They are left as they are: "
                "move them, or choose another --out."
            )
        if marker is None and claim is None and not self.target.create(CLAIM, self._about()):
            found = _json(self.target.read(CLAIM), f"{self.target.uri}/{CLAIM}")
            if found.get("plan") != self.plan.id:  # another one began meanwhile
                raise self._another(found, False)
        return self._known(marker, there), marker is not None

    def _about(self) -> bytes:
        return canonical_json({"plan": self.plan.id, "version": self.plan.version, "digest": self.plan.digest, "format": self.plan.format}).encode()

    def _another(self, found: dict[str, Any], is_complete: bool) -> ConfigError:
        differing = "with other options or labels" if (found.get("digest"), found.get("format")) == (self.plan.digest, self.plan.format) else ""
        what = f"{found.get('version')} (digest {str(found.get('digest'))[:12]}…) as {found.get('format')} {differing}".rstrip()
        return ConfigError(
            f"{self.target.uri} holds {'an' if is_complete else 'an unfinished'} export of {what}; asked for is {self.plan.version} (digest "
            f"{self.plan.digest[:12]}…) as {self.plan.format}. Choose another --out, or delete that one."
        )

    def _known(self, marker: dict[str, Any] | None, there: dict[str, int]) -> _Known:
        known = _Known()
        if marker is None and BEFORE in there:
            marker = _json(self.target.read(BEFORE), BEFORE)
        if marker is not None:
            known.files.update({one["path"]: _File(one["bytes"], one["sha256"]) for one in marker["files"]})
            data = self.target.read(MEMBERS)
            if data is not None and MEMBERS in known.files and sha256_hex(data) == known.files[MEMBERS].sha256:
                with suppress(ValueError):  # it is made again
                    made = read_members(data, self.plan)
                    known.made = {unit.name: [made[place] for place in unit.places] for unit in self.units}
                    known.has_rows = True
        for unit in self.units:
            path = self._part(unit)
            if path in there:
                part = _json(self.target.read(path), path)
                known.files.update({name: _File(size, sha256) for name, size, sha256 in part["files"]})
                known.made[unit.name] = [Made(*one) for one in part["made"]]
        return known

    @staticmethod
    def _part(unit: _Unit) -> str:
        return f"{STATE}/parts/{unit.name}.json"

    def _is_right(self, known: _Known, there: dict[str, int]) -> bool:
        """Hash a complete export; whether nothing is wrong. Else it is no longer said to be complete."""
        self.ws.report(f"export: {self.target.uri} is complete, its {len(known.files):,} files are checked")
        paths = sorted({*known.files, MEMBERS})
        found = in_order(lambda path: self._is_there(path, known, there), paths, [0] * len(paths), self._threads, 1)
        wrong = [path for path, is_right in zip(paths, found, strict=True) if not is_right or (path == MEMBERS and not known.has_rows)]
        if not wrong:
            self.resumed.update(paths)
            self.files = {**known.files, MARKER: _File(there[MARKER], "")}
            return True
        self.ws.report(f"export: {len(wrong)} files of {self.target.uri} are gone or were changed, first {wrong[0]}; they are made again")
        self.target.create(BEFORE, self.target.read(MARKER) or b"{}")
        self.target.create(CLAIM, self._about())
        self.target.remove(MARKER)
        return False

    def _is_there(self, path: str, known: _Known, there: dict[str, int]) -> bool:
        wanted = known.files.get(path)
        if path in self.right:
            return True
        if wanted is None or there.get(path) != wanted.size_bytes or self.target.sha256(path, wanted.size_bytes) != wanted.sha256:
            return False
        with self.lock:
            self.right.add(path)
        return True

    # pictures

    @property
    def _threads(self) -> int:
        return self.ws.config.dask.read_threads

    def _read(self, place: int) -> bytes | None:
        """The bytes of an example as it is exported; None when they are lost, which is noted."""
        example = self.plan.examples[place]
        try:
            data = reencode(read_asset(self.ws.store, example.asset_id, example.source_uri), self.plan.options.form)
        except LOST as error:
            text = f"{error.reason}: {error.detail}" if isinstance(error, Undecodable) else str(error)
            with self.lock:
                self.lost[example.asset_id] = text
            return None
        with self.lock:
            self.ws.tally["export.read"] += 1
        return data

    def _unit(self, unit: _Unit, known: _Known, there: dict[str, int]) -> list[Made]:
        return self._pack(unit, known, there) if unit.shard else self._place(unit, known, there)

    def _place(self, unit: _Unit, known: _Known, there: dict[str, int]) -> list[Made]:
        def one(place: int) -> Made | None:
            example, path = self.plan.examples[place], self._path(place)
            recorded = known.files.get(path)
            # an original's hash is its name: it need not be read at its source to know what is there
            name = example.asset_id if self.plan.options.form == "original" and not example.is_frame else ""
            if path in there:
                found = recorded.sha256 if recorded and path in self.right else self.target.sha256(path, there[path])
                if found and found == (recorded.sha256 if recorded else name):
                    return self._kept(path, Made(path, found, there[path]))
            data = self._read(place)
            if data is None:
                return None
            self._write(path, data, sha256_hex(data), known, there)
            return Made(path, sha256_hex(data), len(data))

        sizes = [expected_bytes(self.plan.examples[place], self.plan.options.form) for place in unit.places]
        made = []
        for found in in_order(one, unit.places, sizes, self._threads, BUFFER_BYTES):
            if found is not None:
                made.append(found)
                self.files[found.file] = _File(found.size_bytes, found.sha256)
                self._progress(found.size_bytes)
        if len(made) == len(unit.places):
            self._record(unit, [[one.file, one.size_bytes, one.sha256] for one in made], made, there)
        return made

    def _pack(self, unit: _Unit, known: _Known, there: dict[str, int]) -> list[Made]:
        path, recorded = unit.shard, known.files.get(unit.shard)
        made: list[Made] = []
        if recorded is not None and self._is_there(path, known, there) and (held := known.made.get(unit.name) or self._unpacked(unit)):
            self.files[path] = recorded
            for one in held:
                made.append(self._kept(path, one))
                self._progress(one.size_bytes)
            return made

        def examples() -> Iterator[tuple[Example, bytes]]:
            sizes = [expected_bytes(self.plan.examples[place], self.plan.options.form) for place in unit.places]
            for place, data in zip(unit.places, in_order(self._read, unit.places, sizes, self._threads, BUFFER_BYTES), strict=True):
                if data is not None:
                    made.append(Made(path, sha256_hex(data), len(data)))
                    self._progress(len(data))
                    yield self.plan.examples[place], data

        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            packed = Path(folder, "shard")
            assert self.format.pack is not None
            self.format.pack(packed, examples(), self.plan)
            if len(made) < len(unit.places):
                return made
            found = _File(packed.stat().st_size, file_sha256(packed))
            self._write(path, packed, found.sha256, known, there)
        self.files[path] = found
        self._record(unit, [[path, found.size_bytes, found.sha256]], made, there)
        return made

    def _unpacked(self, unit: _Unit) -> list[Made]:
        """What became of the examples of a shard, by its own bytes, so that no source is asked for them; empty when it holds others."""
        assert self.format.unpack is not None
        with self.target.local(unit.shard) as path:
            found = [(asset_id, Made(unit.shard, sha256_hex(data), len(data))) for asset_id, data in self.format.unpack(path)]
        wanted = [self.plan.examples[place].asset_id for place in unit.places]
        return [one for _, one in found] if [asset_id for asset_id, _ in found] == wanted else []

    def _record(self, unit: _Unit, files: list[list[Any]], made: list[Made], there: dict[str, int]) -> None:
        told = canonical_json({"files": files, "made": [[one.file, one.sha256, one.size_bytes] for one in made]}).encode()
        path = self._part(unit)
        if not self.target.create(path, told) and self.target.read(path) != told:
            self.target.remove(path)
            self.target.create(path, told)

    def _kept(self, path: str, made: Made) -> Made:
        with self.lock:
            self.resumed.add(path)
        return made

    def _write(self, path: str, data: bytes | Path, sha256: str, known: _Known, there: dict[str, int]) -> None:
        """Make a file. One that is there with other bytes is replaced when it is recorded as ours, and refused when it is not."""
        if self.target.create(path, data):
            return
        size = there.get(path) or (len(data) if isinstance(data, bytes) else data.stat().st_size)
        if self.target.sha256(path, size) == sha256:
            self._kept(path, Made(path, sha256, size))
            return
        if path not in known.files:
            raise ConfigError(
                f"{self.target.uri}/{path} is there with other bytes than the export's, and no run of it recorded them. It is left as it is: move it, or choose "
                "another --out."
            )
        self.ws.report(f"export: {path} was changed since it was written, and is made again")
        self.target.remove(path)
        self.target.create(path, data)
        with self.lock:
            self.replaced.add(path)

    def _progress(self, size_bytes: int) -> None:
        self.done += 1
        self.done_bytes += size_bytes
        if time.monotonic() - self.told_s >= 1 or self.done == len(self.plan.examples):
            self.told_s = time.monotonic()
            self.ws.report(f"export: {self.done:,} of {len(self.plan.examples):,} pictures, {self.done_bytes / 1e6:,.1f} MB")

    def _lost(self) -> MembersLost:
        names = "; ".join(f"{asset_id[:12]}…: {text}" for asset_id, text in sorted(self.lost.items())[:NAMED])
        more = f"; and {len(self.lost) - NAMED} more" if len(self.lost) > NAMED else ""
        return MembersLost(
            f"Export of {self.plan.version} to {self.target.uri} is not complete: {len(self.lost)} of {len(self.plan.examples)} members cannot be read. {names}{more}. "
            "Bring them back at their source or in the store (`discovery verify` names what is wrong) and run the same command again, which goes on."
        )

    def _where_they_are(self) -> list[Made]:
        """Of a list: no picture is read, so of frames only the id is known, and no hash."""
        return [Made("", "" if one.is_frame else one.asset_id, one.size_bytes) for one in self.plan.examples]

    # what describes them

    def _finish(self, made: list[Made], known: _Known, there: dict[str, int]) -> None:
        plan = self.plan

        def put(path: str, data: bytes | Iterator[bytes]) -> None:
            with tempfile.TemporaryDirectory(prefix="export-") as folder:
                whole: bytes | Path = data if isinstance(data, bytes) else _written(data, Path(folder, "whole"))
                size, sha256 = (len(whole), sha256_hex(whole)) if isinstance(whole, bytes) else (whole.stat().st_size, file_sha256(whole))
                self._write(path, whole, sha256, known, there)
            self.files[path] = _File(size, sha256)

        for path, data in self.format.describe(plan, made):
            put(path, data)
        put(MEMBERS, members_csv(plan, made))
        put(SPEC, yaml.safe_dump(json.loads(plan.spec), sort_keys=False, allow_unicode=True).encode())
        put(CROISSANT, json.dumps(self._croissant(), indent=2, ensure_ascii=False).encode())
        put(SUMS, "".join(f"{self.files[path].sha256}  {path}\n" for path in sorted(self.files)).encode())
        told = {
            "plan": plan.id, "version": plan.version, "digest": plan.digest, "format": plan.format, "options": asdict(plan.options), "label": plan.label_column,
            "classes": list(plan.classes), "examples": len(plan.examples),
            "files": [{"path": path, "bytes": self.files[path].size_bytes, "sha256": self.files[path].sha256} for path in sorted(self.files)],
        }  # fmt: skip
        marker = json.dumps(told, indent=1, ensure_ascii=False).encode()
        self.target.create(MARKER, marker)
        self.files[MARKER] = _File(len(marker), sha256_hex(marker))
        for unit in self.units:
            self.target.remove(self._part(unit))
        for path in (BEFORE, CLAIM):
            self.target.remove(path)

    def _croissant(self) -> dict[str, Any]:
        plan = self.plan
        counts = Counter(example.split for example in plan.examples)
        told = ", ".join(f"{counts[split]:,} {split}" for split in plan.splits)
        loose = {self._path(place) for unit in self.units if not unit.shard for place in unit.places}
        files = [_described(path, one) for path, one in sorted(self.files.items()) if path not in loose and path != MEMBERS]
        patterns = sorted({f"{path.split('/')[0]}/**/*{Path(path).suffix}" for path in loose})
        return croissant(
            name=plan.name, number=plan.number, digest=plan.digest, created_at=plan.created_at, table=_described(MEMBERS, self.files[MEMBERS]),
            description=f"Dataset version {plan.version}, digest {plan.digest}, exported as {plan.format}: {len(plan.examples):,} pictures ({told}).",
            columns=COLUMNS, files=files, pictures=patterns, splits=[split for split in plan.splits if counts[split]], classes=plan.classes,
            license_url=plan.options.license_url, cite_as=f"{plan.version}, dataset version of digest {plan.digest}, {plan.created_at}",
        )  # fmt: skip


def _described(path: str, one: _File) -> Described:
    return Described(path, one.sha256, one.size_bytes, MEDIA.get(Path(path).suffix, "application/octet-stream"))


def _written(parts: Iterator[bytes], path: Path) -> Path:
    with open(path, "wb") as file:
        file.writelines(parts)
    return path


def _json(data: bytes | None, name: str) -> dict[str, Any]:
    try:
        found = json.loads(data or b"")
    except ValueError as error:
        raise ConfigError(f"{name} is no JSON of an export: {error}. Delete it, or choose another --out.") from error
    return found if isinstance(found, dict) else {}
