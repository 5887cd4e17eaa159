"""Export: a dataset version as files that training code opens, whole and checked, begun anew or gone on with where it was left."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
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
from discovery.core.export_plan import EXTENSIONS, Example, ExportOptions, ExportPlan, Made, classes_of, cut, expected_bytes
from discovery.errors import ConfigError, CorruptArtifact, InvalidInput, MembersLost, SourceChanged, SourceNotFound, nearest
from discovery.stages.export_rows import examples_of, find_numbered
from discovery.stages.shards import read_asset
from discovery.workspace import Workspace

MARKER = "discovery-export.json"  # written last: its presence says that the export is complete
SUMS = "SHA256SUMS"
CROISSANT = "croissant.json"
SPEC = "spec.yaml"
STATE = ".discovery-export"  # what a run that goes on needs to know; gone from a complete export
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
    """What earlier runs recorded: files, and what became of the examples of finished units."""

    files: dict[str, _File] = field(default_factory=dict)
    made: dict[str, list[Made]] = field(default_factory=dict)


def plan_export(version: str, format_name: str, ws: Workspace, options: ExportOptions) -> ExportPlan:
    """What an export of a version holds. Raises ConfigError for an unknown format, form or label, UnknownRecord for an unknown version."""
    if format_name not in FORMATS:
        raise ConfigError(f"There is no format {format_name!r}. {nearest(format_name, list(FORMATS))}")
    if options.form not in ("original", "jpeg", "png"):
        raise ConfigError(f"Pictures cannot be written as {options.form!r}: original, jpeg or png.")
    if options.shard_bytes < 1 or options.shard_examples < 1:
        raise ConfigError("The limits of a shard are at least 1.")
    record, number = find_numbered(version, ws)
    column, splits, examples = examples_of(record, options.label, ws)
    return ExportPlan(
        record.name, number, record.digest, record.created_at, record.spec, format_name, options, column, splits, classes_of(examples), examples,
    )  # fmt: skip


def export(version: str, format_name: str, out: str, ws: Workspace, options: ExportOptions | None = None) -> Exported:
    """Write a version to `out`, a folder or s3://bucket/prefix, in one of adapters.exports.FORMATS; the same bytes whenever it is done.

    What is there with the right hash is kept, so that a killed export goes on and a complete one is checked; a file of it that was changed is made
    again; files of others are left alone. Raises ConfigError when `out` holds another export, or files of others where ours go; MembersLost,
    when all else is written, for members whose bytes are gone or changed.
    """
    plan = plan_export(version, format_name, ws, options or ExportOptions())
    return _Run(plan, open_target(out, ws.config.s3, ws.config.root), ws).run()


class _Run:
    """One export under way."""

    def __init__(self, plan: ExportPlan, target: ExportTarget, ws: Workspace) -> None:
        self.plan, self.target, self.ws = plan, target, ws
        self.format: Format = FORMATS[plan.format]
        self.lock = threading.Lock()
        self.resumed: set[str] = set()
        self.replaced: set[str] = set()
        self.files: dict[str, _File] = {}  # of the whole export
        self.lost: dict[str, str] = {}
        self.done = self.done_bytes = 0
        self.told_s = time.monotonic()
        self.units = list(self._units())

    def run(self) -> Exported:
        started = time.time()
        there = self.target.sizes()
        known, is_complete = self._claim(there)
        made = self._check_complete(known, there) if is_complete else None
        if made is None:
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
            {split: counts[split] for split in plan.splits}, self._note(),
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
        if len(set(planned)) != len(planned) or len({path.casefold() for path in planned}) != len(planned):
            raise InvalidInput(f"Two splits of {self.plan.version} have names that become one as files. Rename them in the spec.")
        ours = {*planned, *(path for path, _ in self._described([])), MEMBERS, SPEC, CROISSANT, SUMS, MARKER}
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
            if data is not None and sha256_hex(data) == known.files[MEMBERS].sha256:
                made = read_members(data)
                known.made = {unit.name: [made[place] for place in unit.places] for unit in self.units}
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

    def _check_complete(self, known: _Known, there: dict[str, int]) -> list[Made] | None:
        """Hash a complete export; what became of each example when nothing is wrong. Else it is no longer said to be complete, and None is returned."""
        self.ws.report(f"export: {self.target.uri} is complete, its {len(known.files):,} files are checked")
        paths = sorted(known.files)
        found = in_order(lambda path: self._is_there(path, known, there), paths, [0] * len(paths), self._threads, 1)
        wrong = [path for path, is_right in zip(paths, found, strict=True) if not is_right]
        if not wrong and known.made.keys() >= {unit.name for unit in self.units}:
            self.resumed.update(paths)
            self.files = {**known.files, MARKER: _File(there[MARKER], "")}
            return [one for unit in self.units for one in known.made[unit.name]]
        self.ws.report(f"export: {len(wrong)} files of {self.target.uri} are gone or were changed, first {wrong[0]}; they are made again")
        self.target.create(BEFORE, self.target.read(MARKER) or b"{}")
        self.target.create(CLAIM, self._about())
        self.target.remove(MARKER)
        return None

    def _is_there(self, path: str, known: _Known, there: dict[str, int]) -> bool:
        wanted = known.files.get(path)
        return wanted is not None and there.get(path) == wanted.size_bytes and self.target.sha256(path, wanted.size_bytes) == wanted.sha256

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
                found = self.target.sha256(path, there[path])
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
        if recorded is not None and unit.name in known.made and self._is_there(path, known, there):
            self.files[path] = recorded
            for one in known.made[unit.name]:
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

    def _described(self, made: Sequence[Made]) -> Iterator[tuple[str, bytes]]:
        if not made:  # only the names are wanted
            made = [Made("", "", 0)] * len(self.plan.examples)
        yield from self.format.describe(self.plan, made)

    def _finish(self, made: list[Made], known: _Known, there: dict[str, int]) -> None:
        plan = self.plan

        def put(path: str, data: bytes) -> None:
            self._write(path, data, sha256_hex(data), known, there)
            self.files[path] = _File(len(data), sha256_hex(data))

        for path, data in self._described(made):
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

    def _note(self) -> str:
        plan, notes = self.plan, []
        if plan.options.form == "original" and self.format.unread is not None:
            kinds = Counter(one.format if one.format in EXTENSIONS else "RAW" for one in plan.examples)
            found = [f"{what}: {kinds[kind]} {kind}" for kind, what in self.format.unread.items() if kinds[kind]]
            notes += [f"{'; '.join(found)}. --as jpeg or --as png writes them anew."] if found else []
        if self.format.classes_are_folders:
            lacking = [split for split in plan.splits if len({one.label for one in plan.examples if one.split == split}) < len({one.label for one in plan.examples})]
            if lacking:
                notes.append(f"Not every split has every label ({', '.join(lacking)}): readers that number folders number them otherwise there; classes.json has the numbers.")
        return " ".join(notes)


def _described(path: str, one: _File) -> Described:
    return Described(path, one.sha256, one.size_bytes, MEDIA.get(Path(path).suffix, "application/octet-stream"))


def _json(data: bytes | None, name: str) -> dict[str, Any]:
    try:
        found = json.loads(data or b"")
    except ValueError as error:
        raise ConfigError(f"{name} is no JSON of an export: {error}. Delete it, or choose another --out.") from error
    return found if isinstance(found, dict) else {}
