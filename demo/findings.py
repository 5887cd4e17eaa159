"""What the chain found against what was planted: pure comparison of the store's records with the corpus' truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.truth import Truth


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the summary: how many of the planted were found, and how many more were found beside them."""

    name: str
    planted: int
    found: int
    others: int
    remark: str


def compare(
    truth: Truth, asset_of: Mapping[str, str], rejected: Mapping[str, str], quarantined: Sequence[str],
    component_of: Mapping[str, str], novel: Sequence[str], near_groups: int,
) -> list[Finding]:  # fmt: skip
    """One finding a kind of plant.

    asset_of: path relative to the corpus to asset id. rejected: path to reason. quarantined: asset ids. component_of: asset id to its
    duplicate component. novel: asset ids called novel in the second batch. near_groups: groups with near copies over everything.
    """
    bad = [str(item["path"]) for item in truth.unreadable]
    exact = [pair for pair in truth.exact_copies if asset_of.get(pair[0]) == asset_of.get(pair[1]) is not None]
    near = [
        pair for pair in truth.near_copies
        if component_of.get(asset_of.get(pair[0], "")) == component_of.get(asset_of.get(pair[1], "")) is not None
    ]  # fmt: skip
    blank = {asset_of[path] for path in truth.blank if path in asset_of}
    family = {asset_of[path] for path in truth.novel_family if path in asset_of}
    called = set(novel)
    share = len(called - family) / max(len(called), 1)
    return [
        Finding(
            "unreadable files",
            len(bad),
            sum(path in rejected for path in bad),
            len(set(rejected) - set(bad)),
            "rejected, each with its reason",
        ),
        Finding("exact copies", len(truth.exact_copies), len(exact), 0, "same bytes, one asset"),
        Finding(
            "near copies",
            len(truth.near_copies),
            len(near),
            max(0, near_groups - len(near)),
            "others: not planted; a few are copies, most only look very much alike",
        ),
        Finding("blank pictures", len(truth.blank), len(blank & set(quarantined)), len(set(quarantined) - blank), "quarantined"),
        Finding(
            "novel family",
            len(family),
            len(family & called),
            len(called - family),
            f"{share:.0%} of the discoveries are not of the family" if called else "no discovery at this rate; the ranked list is below",
        ),
    ]
