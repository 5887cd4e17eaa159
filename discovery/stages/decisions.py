"""The decisions of a curation: for each asset the rule that let it in or left it out, and what it was decided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: whether it lets in, whether those it decides on were candidates, the stage whose evidence it uses, and what it says.

    value, threshold, evidence: what these of a decision are, in words; empty where the rule has none.
    """

    is_member: bool
    is_candidate: bool
    stage: str
    says: str
    value: str = ""
    threshold: str = ""
    evidence: str = ""


RULES: dict[str, Rule] = {
    "parent": Rule(True, True, "curate", "a member of the parent stays"),
    "include": Rule(True, True, "curate", "the spec includes it by name"),
    "selected": Rule(True, True, "curate", "it was selected", "it added"),
    "not_selected": Rule(False, True, "curate", "the budget went to others", "it would still add", "the last pick added", "the nearest member is"),
    "quota": Rule(False, True, "curate", "its quota was full", "members of its kind", "at most", "the nearest member is"),
    "set_aside": Rule(False, True, "curate", "the selector sets the least dense aside", "its mean similarity to its nearest is", "the least that was kept has"),
    "removed_at_source": Rule(False, False, "ingest", "its source has it no more"),
    "exclude": Rule(False, False, "curate", "the spec excludes it by name, or a copy of it", evidence="the one that is named is"),
    "where": Rule(False, False, "curate", "the filter `where` is not true for it"),
    "must_not_leak_into": Rule(
        False, False, "dedupe", "it is in a version that must not be leaked into, or linked by copies to a member of it", evidence="that member is"
    ),
    "links_splits": Rule(
        False, False, "curate", "a member of the parent never moves, and this one belongs together with one in a smaller split", evidence="that member is"
    ),
    "only_novel": Rule(False, False, "score", "it is not called novel", "its q-value is", "at most"),
    "joins_splits": Rule(False, False, "curate", "it would join members of the parent that are in two splits", evidence="it belongs together with"),
    "duplicates": Rule(False, False, "dedupe", "a copy of it stands for it", "they differ by", "copies differ by at most", "that copy is"),
    "linked_to_member": Rule(False, False, "dedupe", "it is linked by copies to a member that stays in any case", evidence="that member is"),
    "by_example": Rule(False, False, "curate", "others are nearer to the examples", "its similarity to them is", "the last one taken has"),
    "mix": Rule(False, False, "curate", "it is in no part of the mix"),
}
LINKS = {"component_id": "copies", "capture": "one press of the shutter", "burst": "one burst", "video_id": "one video"}


NAMES = list(RULES)


class Decisions:
    """Decisions over n assets, ascending by id; the first on each stands."""

    def __init__(self, ids: NDArray[np.bytes_]) -> None:
        n = len(ids)
        self.ids = ids
        self.code = np.full(n, -1, np.int16)  # of NAMES; -1: nothing is decided
        self.part = np.full(n, "", object)
        self.evidence = np.full(n, None, object)
        self.value = np.full(n, np.nan)
        self.threshold = np.full(n, np.nan)
        self.record = np.full(n, "", object)
        self.linked_by = np.full(n, "", object)

    @property
    def is_open(self) -> NDArray[np.bool_]:
        """(n,) on which nothing is decided."""
        return np.asarray(self.code < 0, bool)

    def decide(
        self, rows: NDArray[Any], rule: str, *, evidence: Sequence[str | None] | None = None, value: Any = np.nan, threshold: Any = np.nan,
        record: str = "", part: str = "", linked_by: str = "",
    ) -> None:  # fmt: skip
        """Decide on rows (numbers or a mask) that are open. evidence, value, threshold: one for all rows, or one for each of them."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        kept = self.code[rows] < 0
        for name, given in (("value", value), ("threshold", threshold)):
            array = np.asarray(given, np.float64)
            getattr(self, name)[rows[kept]] = array[kept] if array.ndim else array
        if evidence is not None:
            self.evidence[rows[kept]] = np.array(evidence, object)[kept]
        self.code[rows[kept]] = NAMES.index(rule)
        for array, one in ((self.record, record), (self.part, part), (self.linked_by, linked_by)):
            if one:
                array[rows[kept]] = one

    def mask(self, *rules: str) -> NDArray[np.bool_]:
        """(n,) on which one of these rules decided."""
        return np.isin(self.code, [NAMES.index(rule) for rule in rules])

    def counts(self, *, candidates: bool = False) -> dict[str, int]:
        """How many each rule left out, in the order of RULES: before selection, or of the candidates."""
        found = dict(zip(NAMES, np.bincount(self.code[self.code >= 0], minlength=len(NAMES)).tolist(), strict=True))
        return {name: found[name] for name, rule in RULES.items() if not rule.is_member and rule.is_candidate == candidates and found[name]}

    def table(self) -> pa.Table:
        """As schemas.DECISIONS; nothing may be open."""
        assert not self.is_open.any()
        names = np.array(NAMES, object)[self.code]
        stages = np.array([rule.stage for rule in RULES.values()], object)[self.code]
        members = np.array([rule.is_member for rule in RULES.values()], bool)[self.code]
        columns = [
            schemas.id_column(self.ids), pa.array(members), pa.array(names, pa.string()), pa.array(self.part, pa.string()),
            pa.array(self.evidence, pa.string()), pa.array(self.value, pa.float64(), from_pandas=True),
            pa.array(self.threshold, pa.float64(), from_pandas=True), pa.array(stages, pa.string()), pa.array(self.record, pa.string()),
            pa.array(self.linked_by, pa.string()),
        ]  # fmt: skip
        return pa.Table.from_arrays(columns, schema=schemas.DECISIONS)


CANDIDATE_RULES = tuple(name for name, rule in RULES.items() if rule.is_candidate)


def link_words(column: str) -> str:
    """What assets with one value of a column share.

    >>> link_words("component_id"), link_words("folder")
    ('copies', 'one folder')
    """
    return LINKS.get(column, f"one {column}")


def sentence(decision: dict[str, Any]) -> str:
    """A row of schemas.DECISIONS in words.

    >>> sentence({"rule": "duplicates", "part": "", "value": 0.0125, "threshold": 0.04, "evidence": "ab" * 32})
    'a copy of it stands for it: they differ by 0.0125, copies differ by at most 0.04; that copy is abababababab'
    """
    rule = RULES[decision["rule"]]
    pairs = ((rule.value, decision["value"]), (rule.threshold, decision["threshold"]))
    figures = ", ".join(f"{words} {value:.4g}" for words, value in pairs if words and value is not None)
    evidence = f"{rule.evidence} {decision['evidence'][:12]}" if rule.evidence and decision["evidence"] else ""
    linked_by = f"by {link_words(decision['linked_by'])}" if decision.get("linked_by") else ""  # older tables lack it
    details = "; ".join(text for text in (linked_by, figures, evidence) if text)
    part = f" (part {decision['part']})" if decision["part"] else ""
    return f"{rule.says}{part}" + (f": {details}" if details else "")
