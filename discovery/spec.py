"""The collection spec: the YAML a person writes, validated before any work, with line numbers and the nearest known key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from discovery.addressing import canonical_json
from discovery.core.selection import SELECTORS
from discovery.errors import SpecError, nearest
from discovery.yaml_text import line_of, read_yaml

VERSION_TEXT = r"^[a-z0-9][a-z0-9._-]*@(v?[0-9]+|[a-z][a-z0-9_-]*)$"  # a number, or an alias such as current
STORED = "stored"  # the context in which the spec of a version is read again
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")  # it becomes a folder, the name of a metric and of a data set
BYTES = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>|[kMGT]i?)B", re.ASCII)
TOGETHER = {"duplicate_group": "component_id", "video": "video_id"}  # what people call it, and the column
UNDER_SPLITS = ("keep_together", "stratify")
NULL = "null"  # under `values` of a quota: what has no value
MOST = 10**18  # of any number in a spec: sums of it stay within 64 bits
VersionText = Annotated[str, Field(pattern=VERSION_TEXT)]


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 1 and 0
        raise ValueError("expected a number")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth), Field(ge=0, le=MOST)]
Positive = Annotated[int, BeforeValidator(_no_truth), Field(gt=0, le=MOST)]
Share = Annotated[float, BeforeValidator(_no_truth), Field(ge=0, le=1, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Written:
    """The text that a spec was read from. What a spec says does not depend on it: all are equal."""

    origin: str = field(default="", compare=False)
    node: Any = field(default=None, compare=False, repr=False)


class Select(_Part):
    """How members are chosen among the candidates. by: column of `stratified`; equal: as many of each of its values; clusters: of `cluster_balanced`."""

    method: str = "facility_location"
    seed: Whole = 7
    by: str = ""
    equal: bool = False
    clusters: Annotated[Whole, Field(le=4000)] = 0

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

    min: Whole | None = None
    max: Whole | None = None

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Quota(Bounds):
    """Bounds on how many members share a value of a column: for every value, or for those under `values`, which count before.

    A bound that a value does not have of its own is the general one; in `values` it is written out.
    """

    by: str
    values: dict[str, Bounds] = {}

    def bounds_of(self, value: str) -> Bounds:
        """What holds for one value."""
        return self.values.get(value, Bounds(min=self.min, max=self.max))

    @field_validator("values", mode="before")
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        named: dict[str, Any] = {}
        for key, bounds in value.items():
            text = NULL if (said := value_text(key)) is None else said
            if text in named:
                raise ValueError(f"value {text!r} is given twice")
            named[text] = bounds
        return named

    @model_validator(mode="after")
    def _write_out_what_values_inherit(self) -> Self:
        resolved = {}
        for value, own in self.values.items():
            given = own.model_fields_set
            least, most = own.min if "min" in given else self.min, own.max if "max" in given else self.max
            if least is not None and most is not None and least > most:
                raise ValueError(f"value {value!r}: its own bound and the general one contradict each other; give it both")
            resolved[value] = Bounds(min=least, max=most)
        if resolved:
            object.__setattr__(self, "values", resolved)  # the model is frozen for everyone else
        return self


class NoveltyFilter(_Part):
    """Which novelty counts: that against `reference`, else the newest report of each batch. `only_novel` keeps discoveries at `fdr` alone."""

    reference: str = ""
    fdr: Annotated[Share, Field(gt=0, lt=1)] = 0.1
    only_novel: bool = False


class Budget(_Part):
    """How much a collection may hold; bytes as 20 GB (1000) or 20 GiB (1024), or a plain number."""

    assets: Positive | None = None
    bytes: Positive | None = None

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
    share: Annotated[Share, Field(gt=0)] | None = None
    where: str = ""
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    only_novel: bool = False
    select: Select | None = None


def _kind_of_budget(value: Any) -> str:
    return "both" if isinstance(value, dict | Budget) else "assets"


class CollectionSpec(_Part):
    """A collection as asked for; `identity()` is its part of a version's digest."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    budget: Annotated[Annotated[Positive, Tag("assets")] | Annotated[Budget, Tag("both")], Discriminator(_kind_of_budget)]
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
    splits: dict[str, Share] = {"train": 0.8, "val": 0.1, "test": 0.1}
    keep_together: tuple[str, ...] = ("duplicate_group", "capture", "burst", "video")
    stratify: str = ""
    parent: VersionText | None = None

    _written: Written = PrivateAttr(default_factory=Written)

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_in_bytes(cls, value: Any) -> Any:
        if not isinstance(value, str) or is_digits(value):
            return value
        return {"bytes": parse_bytes(value)}

    @model_validator(mode="before")
    @classmethod
    def _lift_what_stands_under_splits(cls, data: Any) -> Any:
        """In YAML `keep_together` and `stratify` stand under `splits`; without shares beside them, the usual shares count."""
        if not isinstance(data, dict) or not isinstance(data.get("splits"), dict):
            return data
        splits = dict(data["splits"])
        lifted = {name: splits.pop(name) for name in UNDER_SPLITS if name in splits}
        if both := sorted(set(lifted) & set(data)):
            raise ValueError(f"{both[0]}: stands under splits and beside it; keep the one under splits")
        rest = {key: value for key, value in data.items() if key != "splits"}
        return {**rest, **lifted} if lifted and not splits else {**rest, **lifted, "splits": splits}

    @field_validator("splits", mode="before")
    @classmethod
    def _split_names_can_be_used(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict) or info.context == STORED:
            return value
        named = {value_text(key) or "": share for key, share in value.items()}
        if wrong := [name for name in named if not SPLIT_NAME.fullmatch(name)]:
            raise ValueError(
                f"{wrong[0]!r} cannot be the name of a split, which becomes a folder and a metric: use up to 50 letters, digits, . _ and -, "
                "the first a letter or a digit."
            )
        if len({name.lower() for name in named}) < len(value):
            raise ValueError("two splits have one name, or names that only differ in upper and lower case; as folders they would be one.")
        return named

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> Self:
        if not self.splits or abs(sum(self.splits.values()) - 1) > 1e-6:
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
        columns = [column_of(quota.by) for quota in self.quotas]
        if doubled := sorted({name for name in columns if columns.count(name) > 1}):
            named = " and ".join(repr(quota.by) for quota in self.quotas if column_of(quota.by) == doubled[0])
            raise ValueError(f"quotas: {named} are one column; give it one quota, with the bounds of single values under `values`")
        return self

    @property
    def limit_assets(self) -> int | None:
        """Assets there may be at most; None where only bytes count."""
        return self.budget if isinstance(self.budget, int) else self.budget.assets

    @property
    def limit_bytes(self) -> int | None:
        """Bytes there may be at most; None where only assets count."""
        return None if isinstance(self.budget, int) else self.budget.bytes

    def place(self, *path: str | int) -> str:
        """Where a key stands, to begin a message with: file and line, or the name of the collection when the spec was not read from a text."""
        if self._written.node is None:
            return f"Collection {self.name}"
        return f"{self._written.origin}:{_line(self._written.node, list(path))}"

    def columns(self) -> Iterator[tuple[str, tuple[str | int, ...]]]:
        """Each name of a column that the spec uses outside of `where`, and the path of the key that it stands under."""
        yield from ((name, ("keep_together", place)) for place, name in enumerate(self.keep_together))
        if self.stratify:
            yield self.stratify, ("stratify",)
        yield from ((quota.by, ("quotas", place, "by")) for place, quota in enumerate(self.quotas))
        if self.select.by:
            yield self.select.by, ("select", "by")
        yield from ((part.select.by, ("mix", place, "select", "by")) for place, part in enumerate(self.mix) if part.select and part.select.by)

    def filters(self) -> Iterator[tuple[str, tuple[str | int, ...]]]:
        """Each `where`, and its path."""
        if self.where:
            yield self.where, ("where",)
        yield from ((part.where, ("mix", place, "where")) for place, part in enumerate(self.mix) if part.where)

    def canonical(self) -> str:
        """Canonical JSON of every field, to be read again."""
        return canonical_json(self.model_dump(mode="json"))

    def identity(self) -> str:
        """Canonical JSON of what differs from the defaults, so that a key which is added later changes no digest."""
        return canonical_json({"name": self.name, **self.model_dump(mode="json", exclude_defaults=True)})


def stored_spec(text: str) -> CollectionSpec:
    """The spec of a version, from its JSON: a name that a new spec may not have is one of its members' splits all the same."""
    return CollectionSpec.model_validate_json(text, context=STORED)


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


def column_name(name: str) -> str:
    """A name as the asset table has it: in lower case as far as DuckDB takes letters of two cases for one, which is ASCII.

    >>> column_name("Label"), column_name("ÄB")
    ('label', 'Äb')
    """
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def column_of(name: str) -> str:
    """The column of the asset table that a name in a spec stands for.

    >>> column_of("video"), column_of("Category")
    ('video_id', 'category')
    """
    return TOGETHER.get(column_name(name), column_name(name))


def is_digits(text: str) -> bool:
    """Whether a text is a plain whole number.

    >>> is_digits("2000"), is_digits("²"), is_digits("2 GB")
    (True, False, False)
    """
    return text.strip().isascii() and text.strip().isdigit()


def parse_bytes(text: str) -> int:
    """A number of bytes.

    >>> parse_bytes("1.5 GB"), parse_bytes("2 KiB"), parse_bytes("12")
    (1500000000, 2048, 12)
    """
    if is_digits(text):
        return int(text.strip()[:99])  # longer ones are above what may be all the same
    match = BYTES.fullmatch(text.strip().replace("K", "k"))
    if match is None:
        raise ValueError("expected a number of assets, or bytes such as 20 GB or 512 MiB")
    unit = match["unit"]
    base = 1024 if unit.endswith("i") else 1000
    return int(Decimal(match["number"]) * base ** (" kMGT".index(unit[0]) if unit else 0))


def parse_spec(text: str, origin: str = "spec") -> CollectionSpec:
    """A spec from YAML. Raises SpecError: the line, what was expected, what was found, the nearest known key.

    >>> parse_spec("name: cats\\nbudget: 10").budget
    10
    """
    node, data = read_yaml(text, origin)
    if not isinstance(data, dict):
        raise SpecError(f"{origin}:1: expected a mapping with at least name and budget, found {'nothing' if data is None else type(data).__name__}.")
    try:
        spec = CollectionSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(_what_is_wrong(error, node, origin)) from error
    spec._written = Written(origin, node)
    return spec


PLAIN = {  # what pydantic found, in the words of a person who writes YAML
    "int_type": "expected a whole number", "int_parsing": "expected a whole number", "int_from_float": "expected a whole number",
    "int_parsing_size": "expected a whole number of fewer digits", "float_type": "expected a number", "float_parsing": "expected a number",
    "finite_number": "expected a number", "bool_type": "expected true or false", "bool_parsing": "expected true or false",
    "string_type": "expected text", "tuple_type": "expected a list, such as [a, b]", "dict_type": "expected a mapping, such as {{key: value}}",
    "model_type": "expected a mapping, such as {{key: value}}", "greater_than": "expected a number above {gt:,}",
    "greater_than_equal": "expected a number of at least {ge:,}", "less_than": "expected a number below {lt:,}",
    "less_than_equal": "expected a number of at most {le:,}", "literal_error": "expected {expected}",
}  # fmt: skip


def _what_is_wrong(error: ValidationError, node: Any, origin: str) -> str:
    # a misspelt key also leaves its own one missing: tell the misspelling
    first = min(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    path = list(first["loc"])
    if path[:1] == ["budget"] and len(path) > 1:
        del path[1]  # which kind of budget it was taken for
    message = re.sub(r"^Value error, ", "", first["msg"])
    about = re.match(r"(\w+)(?:: | must)", message)
    line = _line(node, path or ([about[1]] if about else []))
    place = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        return f"{origin}:{line}: unknown key {place}. {nearest(str(path[-1]), _known_keys(path))}"
    if first["type"] == "missing":
        return f"{origin}:{line}: {place} is missing. Add `{path[-1]}: …`."
    if first["type"] == "string_pattern_mismatch":
        pattern = str(first["ctx"]["pattern"])
        longest = re.search(r"\{0,(\d+)\}", pattern)
        message = f"expected at most {int(longest[1]) + 1} lower-case letters, digits, . _ and -, the first a letter or a digit" if longest else "expected a version as name@3 or name@current"
    elif first["type"] in PLAIN:
        message = PLAIN[first["type"]].format(**first.get("ctx", {}))
    where = f"{origin}:{line}: {place + ': ' if place else ''}"
    if message[-1] in ".?":
        return f"{where}{message}"
    advice = " Put it in quotes." if first["type"] == "string_type" and isinstance(first["input"], int | float | date) else ""
    return f"{where}{message}{_found(first['input']) if path and not isinstance(first['input'], dict) else ''}.{advice}"


def _found(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return f", found {value_text(value) or 'nothing'}"
    if isinstance(value, list | tuple | dict):
        return ", found a mapping" if isinstance(value, dict) else ", found a list"
    text = repr(value) if not isinstance(value, int) or abs(value) <= MOST**2 else "a number of more than 36 digits"
    return f", found {text if len(text) <= 80 else f'{text[:77]}...'}"


def _line(node: Any, path: list[Any]) -> int:
    """The line of a key, of which some may stand under `splits`."""
    inside: list[Any] = next((value.value for key, value in node.value if key.value == "splits" and isinstance(value, yaml.MappingNode)), [])
    return line_of(node, ["splits", *path] if path[:1] and path[0] in {key.value for key, _ in inside} else path)


def _known_keys(path: list[Any]) -> list[str]:
    """Keys of the mapping that a path ends in."""
    model: type[BaseModel] = CollectionSpec
    parts: dict[str, type[BaseModel]] = {"select": Select, "quotas": Quota, "values": Bounds, "novelty": NoveltyFilter, "mix": MixPart, "budget": Budget}
    for before, part in zip(["", *path], path[:-1], strict=False):
        model = model if before == "values" else parts.get(str(part), model)
    return list(model.model_fields)
