"""The collection spec: the YAML a person writes, validated before any work, with line numbers and the nearest known key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from discovery.addressing import canonical_json
from discovery.core.selection import SELECTORS
from discovery.errors import SpecError, nearest

VERSION_TEXT = r"^[a-z0-9][a-z0-9._-]*@v?[0-9]+$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Select(_Part):
    """How members are chosen among the candidates."""

    method: str = "facility_location"
    seed: int = Field(7, ge=0)

    @field_validator("method")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        if value not in SELECTORS:
            raise ValueError(f"expected one of {', '.join(sorted(SELECTORS))}")
        return value


class Quota(_Part):
    """Bounds on how many members share a value of a column."""

    by: str
    max: int | None = Field(None, ge=0)
    min: int | None = Field(None, ge=0)


class NoveltyFilter(_Part):
    """Which novelty counts: `only_novel` keeps discoveries alone, at `fdr` when it is stricter than the report's."""

    reference: str = ""
    fdr: float = Field(0.1, gt=0, lt=1)
    only_novel: bool = False


class CollectionSpec(_Part):
    """A collection as asked for; `canonical()` is its part of a version's digest."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    budget: int = Field(gt=0)
    where: str = ""
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    select: Select = Select()
    quotas: tuple[Quota, ...] = Field((), max_length=1)
    novelty: NoveltyFilter = NoveltyFilter()
    duplicates: Literal["keep", "drop"] = "drop"
    must_not_leak_into: tuple[Annotated[str, Field(pattern=VERSION_TEXT)], ...] = ()
    splits: dict[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
    keep_together: tuple[Literal["duplicate_group", "capture", "burst", "video", "folder", "category"], ...] = (
        "duplicate_group", "capture", "burst", "video",
    )  # fmt: skip
    parent: Annotated[str, Field(pattern=VERSION_TEXT)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _lift_keep_together(cls, data: Any) -> Any:
        """In YAML `keep_together` stands under `splits`."""
        if isinstance(data, dict) and isinstance(data.get("splits"), dict) and "keep_together" in data["splits"]:
            splits = dict(data["splits"])
            return {**data, "keep_together": splits.pop("keep_together"), "splits": splits}
        return data

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> Self:
        if not self.splits or abs(sum(self.splits.values()) - 1) > 1e-6 or min(self.splits.values()) < 0:
            raise ValueError("splits must be fractions that sum to 1")
        return self

    def canonical(self) -> str:
        """Canonical JSON of every field; duplicates stay together in any case, so that no split leaks."""
        return canonical_json(self.model_dump(mode="json"))


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
        # a misspelt key also leaves its own one missing: tell the misspelling
        first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        path = [part for part in first["loc"] if part != "function-after"]
        line = _line_of(node, path)
        place = ".".join(str(part) for part in path)
        if first["type"] == "extra_forbidden":
            raise SpecError(f"{origin}:{line}: unknown key {place}. {nearest(str(path[-1]), _known_keys(path))}") from error
        if first["type"] == "missing":
            raise SpecError(f"{origin}: {place} is missing. Add `{place}: …`.") from error
        message = re.sub(r"^Value error, ", "", first["msg"])
        found = f", found {first['input']!r}" if path else ""
        raise SpecError(f"{origin}:{line}: {place + ': ' if place else ''}{message}{found}.") from error


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
    parts: dict[str, type[BaseModel]] = {"select": Select, "quotas": Quota, "novelty": NoveltyFilter}
    model = parts.get(str(path[0]), CollectionSpec) if len(path) > 1 else CollectionSpec
    return list(model.model_fields)
