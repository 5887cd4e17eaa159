"""The collection spec: the YAML a person writes, validated before any work, with line numbers and the nearest known key."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from discovery.addressing import canonical_json
from discovery.core.selection import SELECTORS
from discovery.errors import SpecError, nearest

VERSION_TEXT = r"^[a-z0-9][a-z0-9._-]*@(v?[0-9]+|[a-z][a-z0-9_-]*)$"  # a number, or an alias such as current
BYTES = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>|[kMGT]i?)B", re.ASCII)
TOGETHER = {"duplicate_group": "component_id", "video": "video_id"}  # what people call it, and the column
VersionText = Annotated[str, Field(pattern=VERSION_TEXT)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Select(_Part):
    """How members are chosen among the candidates. by: column of `stratified`; equal: as many of each of its values; clusters: of `cluster_balanced`."""

    method: str = "facility_location"
    seed: int = Field(7, ge=0)
    by: str = ""
    equal: bool = False
    clusters: int = Field(0, ge=0, le=4000)

    @field_validator("method")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        if value not in SELECTORS:
            raise ValueError(f"expected one of {', '.join(sorted(SELECTORS))}. {nearest(value, sorted(SELECTORS))}")
        return value

    @model_validator(mode="after")
    def _options_are_of_the_method(self) -> Self:
        if (self.method == "stratified") != bool(self.by):
            raise ValueError("`by` names the column of method stratified, and of no other")
        if self.equal and self.method != "stratified":
            raise ValueError("`equal` is of method stratified")
        if self.clusters and self.method != "cluster_balanced":
            raise ValueError("`clusters` is of method cluster_balanced")
        return self


class Bounds(_Part):
    """Fewest and most members."""

    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Quota(Bounds):
    """Bounds on how many members share a value of a column: for every value, or for those under `values`, which count before."""

    by: str
    values: dict[str, Bounds] = {}

    def bounds_of(self, value: str) -> Bounds:
        """What holds for one value."""
        own = self.values.get(value, Bounds())
        given = own.model_fields_set
        return Bounds(min=own.min if "min" in given else self.min, max=own.max if "max" in given else self.max)

    @model_validator(mode="after")
    def _values_go_with_the_rest(self) -> Self:
        for value in self.values:
            try:
                self.bounds_of(value)
            except ValueError:
                raise ValueError(f"value {value!r}: its own bound and the general one contradict each other; give it both") from None
        return self


class NoveltyFilter(_Part):
    """Which novelty counts: that against `reference`, else the newest report of each batch. `only_novel` keeps discoveries at `fdr` alone."""

    reference: str = ""
    fdr: float = Field(0.1, gt=0, lt=1)
    only_novel: bool = False


class Budget(_Part):
    """How much a collection may hold; bytes as 20 GB (1000) or 20 GiB (1024), or a plain number."""

    assets: int | None = Field(None, gt=0)
    bytes: int | None = Field(None, gt=0)

    @field_validator("bytes", mode="before")
    @classmethod
    def _read_bytes(cls, value: Any) -> Any:
        return parse_bytes(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_given(self) -> Self:
        if self.assets is None and self.bytes is None:
            raise ValueError("a budget has assets, bytes, or both")
        return self


class MixPart(_Part):
    """One of several sources of a collection: the candidates that these rules leave, of which `share` of the members come.

    Without a share a part is free: free parts compete with one another for what the shares leave.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$")
    share: float | None = Field(None, gt=0, le=1)
    where: str = ""
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    only_novel: bool = False
    select: Select | None = None


class CollectionSpec(_Part):
    """A collection as asked for; `identity()` is its part of a version's digest."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    budget: Annotated[int, Field(gt=0)] | Budget
    where: str = ""
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    mix: tuple[MixPart, ...] = ()
    select: Select = Select()
    quotas: tuple[Quota, ...] = ()
    novelty: NoveltyFilter = NoveltyFilter()
    duplicates: Literal["keep", "drop"] = "drop"
    must_not_leak_into: tuple[VersionText, ...] = ()
    splits: dict[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
    keep_together: tuple[str, ...] = ("duplicate_group", "capture", "burst", "video")
    stratify: str = ""
    parent: VersionText | None = None

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_in_bytes(cls, value: Any) -> Any:
        return {"bytes": parse_bytes(value)} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _lift_what_stands_under_splits(cls, data: Any) -> Any:
        """In YAML `keep_together` and `stratify` stand under `splits`."""
        if isinstance(data, dict) and isinstance(data.get("splits"), dict):
            splits = dict(data["splits"])
            lifted = {name: splits.pop(name) for name in ("keep_together", "stratify") if name in splits}
            return {**data, **lifted, "splits": splits}
        return data

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> Self:
        if not self.splits or abs(sum(self.splits.values()) - 1) > 1e-6 or min(self.splits.values()) < 0:
            raise ValueError("splits must be fractions that sum to 1")
        return self

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        names = [part.name for part in self.mix]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"mix: two parts are called {doubled[0]}")
        shares = [part.share for part in self.mix if part.share is not None]
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"mix: shares sum to {sum(shares):g}, which is above 1")
        if self.mix and len(shares) == len(self.mix) and abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"mix: shares sum to {sum(shares):g}; let them sum to 1, or give a part no share, so that it takes the rest")
        free = [part for part in self.mix if part.share is None]
        if len(free) > 1 and (own := [part.name for part in free if part.select is not None]):
            raise ValueError(f"mix: part {own[0]} has no share and competes with other parts, so it cannot have a selector of its own; give it a share")
        if shares and self.limit_assets is None:
            raise ValueError("mix: shares are of a budget in assets; give budget: {assets: …, bytes: …}")
        if both := sorted(set(self.include) & set(self.exclude)):
            raise ValueError(f"{both[0]!r} is in include and in exclude")
        columns = [quota.by.lower() for quota in self.quotas]
        if doubled := sorted({name for name in columns if columns.count(name) > 1}):
            raise ValueError(f"quotas: {doubled[0]!r} has two; put the bounds of single values under `values`")
        return self

    @property
    def limit_assets(self) -> int | None:
        """Assets there may be at most; None where only bytes count."""
        return self.budget if isinstance(self.budget, int) else self.budget.assets

    @property
    def limit_bytes(self) -> int | None:
        """Bytes there may be at most; None where only assets count."""
        return None if isinstance(self.budget, int) else self.budget.bytes

    def canonical(self) -> str:
        """Canonical JSON of every field, to be read again."""
        return canonical_json(self.model_dump(mode="json"))

    def identity(self) -> str:
        """Canonical JSON of what differs from the defaults, so that a key which is added later changes no digest."""
        return canonical_json({"name": self.name, **self.model_dump(mode="json", exclude_defaults=True)})


def value_text(value: object) -> str | None:
    """A value of a column, or a key under `values` of a quota, as the text by which the two are compared; None for null and NaN.

    >>> value_text(3), value_text(3.0), value_text(0.5), value_text(True), value_text("True"), value_text(None)
    ('3', '3', '0.5', 'true', 'True', None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def parse_bytes(text: str) -> int:
    """A number of bytes.

    >>> parse_bytes("1.5 GB"), parse_bytes("2 KiB"), parse_bytes("12")
    (1500000000, 2048, 12)
    """
    if text.strip().isdigit():
        return int(text)
    match = BYTES.fullmatch(text.strip().replace("K", "k"))
    if match is None:
        raise ValueError("expected a number of assets, or bytes such as 20 GB or 512 MiB")
    unit = match["unit"]
    base = 1024 if unit.endswith("i") else 1000
    return int(float(match["number"]) * base ** (" kMGT".index(unit[0]) if unit else 0))


def parse_spec(text: str, origin: str = "spec") -> CollectionSpec:
    """A spec from YAML. Raises SpecError: the line, what was expected, what was found, the nearest known key.

    >>> parse_spec("name: cats\\nbudget: 10").budget
    10
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{origin}{place}: not valid YAML: {getattr(error, 'problem', error)}.") from error
    if not isinstance(data, dict):
        raise SpecError(f"{origin}:1: expected a mapping with at least name and budget, found {type(data).__name__}.")
    try:
        return CollectionSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(_what_is_wrong(error, node, origin)) from error


def _what_is_wrong(error: ValidationError, node: Any, origin: str) -> str:
    # a misspelt key also leaves its own one missing: tell the misspelling
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    path = [part for part in first["loc"] if not re.match(r"function-|constrained-int|int$|Budget$", str(part))]
    about = re.match(r"(?:Value error, )?(\w+)(?:: | must)", first["msg"])
    line = _line_of(node, path or ([about[1]] if about else []))
    place = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        return f"{origin}:{line}: unknown key {place}. {nearest(str(path[-1]), _known_keys(path))}"
    if first["type"] == "missing":
        return f"{origin}:{line}: {place} is missing. Add `{path[-1]}: …`."
    message = re.sub(r"^Value error, ", "", first["msg"])
    if first["type"] == "string_pattern_mismatch" and first["ctx"]["pattern"] == VERSION_TEXT:
        message = "expected a version as name@3 or name@current"
    if message[-1] in ".?":
        return f"{origin}:{line}: {place + ': ' if place else ''}{message}"
    found = f", found {first['input']!r}" if path and not isinstance(first["input"], dict) else ""
    return f"{origin}:{line}: {place + ': ' if place else ''}{message}{found}."


def _line_of(node: Any, path: list[Any]) -> int:
    """Line, from 1, of the key or item at a path; of the nearest parent when it is not in the text."""
    line = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            hit = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if hit is None:
                return int(line)
            line, node = hit[0].start_mark.line + 1, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)


def _known_keys(path: list[Any]) -> list[str]:
    """Keys of the mapping that a path ends in."""
    model: type[BaseModel] = CollectionSpec
    parts: dict[str, type[BaseModel]] = {"select": Select, "quotas": Quota, "values": Bounds, "novelty": NoveltyFilter, "mix": MixPart, "budget": Budget}
    for part in path[:-1]:
        model = parts.get(str(part), model)
    return list(model.model_fields)
