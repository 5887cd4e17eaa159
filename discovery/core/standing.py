"""Which versions of a collection its aliases point at, and which were yanked: a state, and the moves from one to the next.

`current` is the last of the good versions, `previous` the one before it, `candidate` the newest version that nobody decided on yet. Other
aliases are set by people. A yanked version is pointed at by none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from discovery.addressing import canonical_json
from discovery.errors import InvalidInput

CURRENT, PREVIOUS, CANDIDATE = "current", "previous", "candidate"
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # what MLflow takes as one, in small letters
REASON_LIMIT = 500  # it stands before all else where the version is shown
NUMBER = re.compile(r"v?[0-9]+")


@dataclass(frozen=True, slots=True)
class Yank:
    """Why a version should not be used any more, who says so, and when."""

    reason: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one collection.

    good: versions that were made current and not rolled back from since, oldest first. candidate: 0 for none. newest: the highest
    number that was looked at, so that an old version is no candidate again. named: what people call a version.
    """

    good: tuple[int, ...] = ()
    candidate: int = 0
    newest: int = 0
    named: Mapping[str, int] = field(default_factory=dict)
    yanked: Mapping[int, Yank] = field(default_factory=dict)

    @property
    def aliases(self) -> dict[str, int]:
        """Every alias that points at a version, and its number.

        >>> Standing(good=(1, 2, 3), yanked={2: Yank("blurred", "ana", "")}).aliases
        {'current': 3, 'previous': 1}
        """
        usable = [number for number in self.good if number not in self.yanked]
        own = dict(zip((CURRENT, PREVIOUS), reversed(usable), strict=False))
        if self.candidate:
            own[CANDIDATE] = self.candidate
        return own | dict(sorted(self.named.items()))

    def of(self, number: int) -> tuple[str, ...]:
        """The aliases that point at a version."""
        return tuple(alias for alias, at in self.aliases.items() if at == number)

    def to_json(self) -> str:
        """Canonical JSON."""
        yanked = {str(number): [yank.reason, yank.by, yank.at] for number, yank in self.yanked.items()}
        return canonical_json({"good": self.good, "candidate": self.candidate, "newest": self.newest, "named": dict(self.named), "yanked": yanked})

    @classmethod
    def from_json(cls, text: str) -> Standing:
        """The inverse of `to_json`."""
        data: dict[str, Any] = json.loads(text)
        yanked = {int(number): Yank(*said) for number, said in data["yanked"].items()}
        return cls(tuple(data["good"]), data["candidate"], data["newest"], data["named"], yanked)


def with_newest(standing: Standing, newest: int) -> Standing:
    """After versions up to `newest` were made: the newest is the candidate.

    >>> with_newest(Standing(good=(1,), newest=1), 2).aliases
    {'current': 1, 'candidate': 2}
    """
    return standing if newest <= standing.newest else replace(standing, candidate=newest, newest=newest)


def promoted(standing: Standing, number: int) -> Standing:
    """The version is current; the former current is `previous`. InvalidInput when it was yanked.

    >>> promoted(Standing(good=(1,), candidate=2, newest=2), 2).aliases
    {'current': 2, 'previous': 1}
    """
    _refuse_yanked(standing, number)
    good = (*(one for one in standing.good if one != number), number)
    if standing.aliases.get(CURRENT) == number:
        good = standing.good
    return replace(standing, good=good, candidate=0 if standing.candidate == number else standing.candidate)


def rolled_back(standing: Standing, to: int | None) -> Standing:
    """`current` is an earlier good version, by default the previous one; those after it are good no more.

    >>> rolled_back(Standing(good=(1, 2, 3)), None).aliases
    {'current': 2, 'previous': 1}
    """
    aliases = standing.aliases
    target = aliases.get(PREVIOUS) if to is None else to
    if target is None:
        raise InvalidInput("There is no earlier good version to roll back to. `discovery promote NAME@N` makes any version current.")
    _refuse_yanked(standing, target)
    if target not in standing.good:
        raise InvalidInput(f"Version {target} was never current, so there is no way back to it. `discovery promote NAME@{target}` makes it current.")
    return replace(standing, good=standing.good[: standing.good.index(target) + 1])


def with_alias(standing: Standing, alias: str, number: int) -> Standing:
    """A person's alias points at the version; 0 takes it away. InvalidInput for a name that cannot be one, or a yanked version.

    >>> with_alias(Standing(), "paper", 2).aliases
    {'paper': 2}
    """
    if not ALIAS.fullmatch(alias) or NUMBER.fullmatch(alias) or alias == "latest":
        raise InvalidInput(f"{alias!r} cannot be an alias: small letters, digits, _ and -, a letter first; v3 and latest mean something else.")
    if alias == CURRENT:
        if not number:
            raise InvalidInput("`current` is not taken away: yank the version, or promote another one.")
        return promoted(standing, number)
    if alias in (PREVIOUS, CANDIDATE):
        raise InvalidInput(f"`{alias}` moves by itself: {'the good version before the current one' if alias == PREVIOUS else 'the newest version, until it is promoted'}.")
    if number:
        _refuse_yanked(standing, number)
    named = {name: at for name, at in standing.named.items() if name != alias}
    return replace(standing, named=named | ({alias: number} if number else {}))


def with_yank(standing: Standing, number: int, yank: Yank | None) -> Standing:
    """The version is yanked, and aliases move off it: `current` to the last good one. None takes it back: it is as good as it was.

    >>> state = with_yank(Standing(good=(1, 2), named={"paper": 2}), 2, Yank("faces", "ana", ""))
    >>> state.aliases, with_yank(state, 2, None).aliases
    ({'current': 1}, {'current': 2, 'previous': 1})
    """
    others = {one: said for one, said in standing.yanked.items() if one != number}
    if yank is None:
        if number not in standing.yanked:
            raise InvalidInput(f"Version {number} is not yanked.")
        return replace(standing, yanked=others)
    if not 0 < len(yank.reason.strip()) <= REASON_LIMIT:
        raise InvalidInput(f"A yank needs a reason of at most {REASON_LIMIT} characters: --reason TEXT." if yank.reason.strip() else "A yank needs a reason: --reason TEXT.")
    named = {name: at for name, at in standing.named.items() if at != number}
    candidate = 0 if standing.candidate == number else standing.candidate
    return replace(standing, yanked=others | {number: yank}, named=named, candidate=candidate)


def _refuse_yanked(standing: Standing, number: int) -> None:
    if number in standing.yanked:
        yank = standing.yanked[number]
        raise InvalidInput(f"Version {number} was yanked by {yank.by} on {yank.at}: {yank.reason}. Take that back first (discovery yank --undo), or choose another.")
