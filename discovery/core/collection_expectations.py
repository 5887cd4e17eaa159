"""What is expected of a dataset version from the start, and the numbers of it that expectations may be on."""

from __future__ import annotations

from collections.abc import Mapping

from discovery.core.expectations import Action, Expectation, Severity

NUMBERS: dict[str, str] = {
    "members": "assets in the version",
    "candidates": "assets that it was chosen from",
    "copies_within": "members that are a copy of another member; not with `duplicates: keep`",
    "leaked_members": "members that share a chain of copies with another split",
    "held_out_members": "members that are in a version of `must_not_leak_into`, or are a copy of one there",
    "close_share": "share of members whose nearest member in another split is at least `collection.close_cosine` similar",
    "coverage_radius": "largest distance of a candidate to its nearest member",
    "coverage_p95": "distance within which 95 % of the candidates have a member",
    "coverage_mean": "mean distance of a candidate to its nearest member",
    "recall_margin": "certified bound on the recall of the index, minus its target",
    "lost_from_parent": "members of the parent that are no members any more, and that no rule of the spec took out",
    "let_go_from_parent": "members of the parent that `exclude`, `must_not_leak_into` or a link between two splits took out",
    "moved_from_parent": "members of the parent that are in another split now",
    "gained_on_parent": "members that the parent lacks",
    "bytes_defects": "members looked at whose bytes are lost or changed",
    "thumbnails_defects": "members looked at without a thumbnail that opens",
    "measures_defects": "members looked at that do not decode, or whose measures are not what was recorded",
    "vectors_defects": "members embedded again whose vector is another",
    "defect_rate_bound": "share of defective members that is not exceeded, by the worst of these checks, with `collection.confidence`",
    "classes": "labels in use",
    "effective_classes": "number of equally large classes that would be as diverse (exp of the entropy)",
    "class_imbalance": "members of the largest class over those of the smallest",
    "small_classes": "classes with fewer than `collection.min_class` members",
    "split_gaps": "pairs of a class and a split without a member, of classes that have enough for every split",
    "unlabelled_share": "share of members without a label",
    "likely_mislabels": "members looked at whose pictures other members clearly expect another label of",
    "mislabel_share": "their share",
    "mislabel_recall": "share of labels swapped on purpose that is told",
    "contradicting_copies": "members of which the same picture or a copy is listed with another label",
    "label_leak": "skill of the column that gives labels away best, when it is more than chance; 0 none, 1 always right",
}  # fmt: skip

UNIT_VECTOR = Expectation(
    "vectors_are_unit", "vector_norm", 0.999, 1.001, "a vector that is not finite or not of length 1: embed the asset again", Severity.CRITICAL, Action.FAIL
)


def _fails(name: str, column: str, minimum: float | None, maximum: float | None, why: str) -> Expectation:
    return Expectation(name, column, minimum, maximum, why, Severity.CRITICAL, Action.FAIL)


def _warns(name: str, column: str, minimum: float | None, maximum: float | None, why: str) -> Expectation:
    return Expectation(name, column, minimum, maximum, why)


BUILT_IN = [
    _fails("no_leak_between_splits", "leaked_members", None, 0, "copies in two splits: test results would be too good"),
    _fails("held_out_stays_out", "held_out_members", None, 0, "the version holds what it must not leak into"),
    _fails("parent_is_kept", "lost_from_parent", None, 0, "a version that grows keeps its members"),
    _fails("bytes_are_intact", "bytes_defects", None, 0, "the storage lost or changed pictures: discovery verify tells all of them"),
    _fails("vectors_are_reproduced", "vectors_defects", None, 0, "vectors that belong to other pictures, or to another encoder"),
    _fails("parent_splits_are_kept", "moved_from_parent", None, 0, "members changed their split: what one learnt from is tested on, results do not compare"),
    _warns("parent_loses_none", "let_go_from_parent", None, 0, "rules of the spec took members of the parent out: results on the parent do not compare"),
    _warns("measures_are_reproduced", "measures_defects", None, 0, "measured by another version of the libraries, or of other bytes"),
    _warns("thumbnails_are_there", "thumbnails_defects", None, 0, "galleries and pages show nothing for them"),
    _warns("no_copies_within", "copies_within", None, 0, "members that count twice"),
    _warns("splits_are_apart", "close_share", None, 0.05, "pictures that are nearly the same, if no copies, on both sides of a split"),
    _warns("recall_is_certified", "recall_margin", 0, None, "searches of this index may miss neighbours: discovery index --audit"),
    _warns("all_have_labels", "unlabelled_share", None, 0, "members without a label"),
    _warns("classes_are_large_enough", "small_classes", None, 0, "too few members to learn or to test from"),
    _warns("every_split_has_every_class", "split_gaps", None, 0, "a class that is trained on is not tested, or the reverse"),
    _warns("few_likely_mislabels", "mislabel_share", None, 0.05, "look at them in the report, most doubtful first"),
    _warns("copies_agree_on_labels", "contradicting_copies", None, 0, "one picture with two labels: at most one is right"),
    _warns("labels_are_not_given_away", "label_leak", None, 0.25, "a model can tell labels by how files were made, not by what they show"),
]  # fmt: skip


def collection_expectations(numbers: Mapping[str, float]) -> list[Expectation]:
    """The built-in expectations on the numbers that there are: without labels there are none on labels.

    >>> [one.name for one in collection_expectations({"leaked_members": 0.0})]
    ['no_leak_between_splits']
    """
    return [one for one in BUILT_IN if one.column in numbers]
