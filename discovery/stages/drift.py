"""Drift: how one set of assets differs from another, by vectors, by measures, and by what each has that the other lacks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from discovery.adapters.storage import table_to_parquet
from discovery.config import DriftConfig
from discovery.core.drift import compare, in_words
from discovery.core.two_sample import LEAST_ROWS, ClassifierTest, KernelTest, classifier_test, kernel_test, two_sample_p
from discovery.errors import EncoderMismatch, InvalidInput
from discovery.stages.asset_sets import AssetSet
from discovery.stages.drift_lacks import Lack, lacking, lacking_table
from discovery.stages.drift_page import Findings, drift_html
from discovery.stages.drift_units import Side, Sides, columns_of, sides_of
from discovery.types import DriftReport, SetSide
from discovery.workspace import Workspace

SHOWN = 8  # assets at either end of what the classifier tells


def drift(a: AssetSet, b: AssetSet, ws: Workspace) -> DriftReport:
    """How b differs from a, committed; asked again, it is found. Its file "report" is a page, "result" holds all numbers, "table" what each set lacks.

    Of a burst, of a video and of a duplicate group one asset stands for all, so that rows are about independent; where a set is of a few
    videos, all frames are taken, and `note` says what that means. In the tests of vectors an asset that both sets have counts on one side.
    Sets may be of different snapshots. Raises InvalidInput when one is empty, EncoderMismatch when they are of different encoders.
    """
    config = ws.config.drift
    for one in (a, b):
        if not len(one.rows):
            raise InvalidInput(f"{one.label} holds no indexed asset, so there is nothing to compare. Give a set that does, or index its source first.")
    if a.snapshot.encoder_id != b.snapshot.encoder_id:
        raise EncoderMismatch(
            f"{a.label} has vectors of {a.snapshot.encoder_id}, {b.label} those of {b.snapshot.encoder_id}, which cannot be compared. "
            "Curate the older version anew from the index of the current encoder, or compare by another set."
        )
    inputs = tuple(dict.fromkeys((*a.inputs, *b.inputs)))
    key = ws.key(DriftReport, [config], inputs, a=a.id, b=b.id)
    if (found := ws.find(DriftReport, key)) is not None:
        return found

    ws.report(f"drift: {len(a.rows):,} assets against {len(b.rows):,}")
    sides = sides_of(a, b, ws, config.salt)
    columns = columns_of(sides)
    compared = compare(*columns, config.level)
    tested = tuple(side.drawn(config.rows, config.salt) for side in sides.each_once(config.salt))
    kernel, classifier, note = _told_apart(sides, tested[0], tested[1], config, key)
    p_value = two_sample_p(kernel, classifier) if kernel and classifier else None
    ws.report("drift: what each set has that the other lacks")
    lacks = (lacking(sides.a, sides.b, sides.shared, config), lacking(sides.b, sides.a, sides.shared, config))
    report = DriftReport(
        id=key, inputs=inputs, created_at=ws.clock(), encoder_id=a.snapshot.encoder_id,
        a=_described(a, sides.a, lacks[0]), b=_described(b, sides.b, lacks[1]), shared=len(sides.shared), level=config.level,
        compared_a=len(tested[0].rows), compared_b=len(tested[1].rows), p_value=p_value,
        auc=classifier.auc if classifier else None, auc_low=classifier.low if classifier else None, auc_high=classifier.high if classifier else None,
        is_drifted=p_value is not None and p_value <= config.level, moved=tuple(one.name for one in compared if one.is_moved),
        note=" ".join(part for part in (sides.note, note) if part),
    )  # fmt: skip
    extremes = _extremes(classifier, tested[0], tested[1]) if classifier and report.is_drifted else ((), ())
    addresses = {one: address for side in (sides.a, sides.b) for one, address in zip(*side.assets.select(["asset_id", "source_uri"]).to_pydict().values(), strict=True)}
    findings = Findings(report, config, tuple(compared), columns[0], columns[1], lacks[0], lacks[1], *extremes, addresses)
    table = pa.concat_tables([lacking_table(lack, held_by) for lack, held_by in zip(lacks, "ab", strict=True)])
    page = drift_html(findings, ws.thumbnail)
    files = (
        ws.put_file(DriftReport, key, "result", json.dumps(_result(findings, kernel, classifier), indent=1).encode(), ".json"),
        ws.put_file(DriftReport, key, "table", table_to_parquet(table), ".parquet", len(table)),
        ws.put_file(DriftReport, key, "report", page.encode(), ".html"),
    )
    return ws.commit(replace(report, files=files))


@dataclass(frozen=True, slots=True)
class MeasureDrift:
    """One column of a report. ks: Kolmogorov and Smirnov's distance, total variation for categories; p_value after Holm; shift in interquartile ranges of a."""

    name: str
    psi: float
    ks: float
    p_value: float
    shift: float
    is_moved: bool
    words: str


def measures_of(report: DriftReport, ws: Workspace) -> list[MeasureDrift]:
    """The columns of a committed report, the most moved first."""
    rows = json.loads(ws.store.read_file(report, "result"))["columns"]
    return [
        MeasureDrift(row["name"], row["psi"], row["distance"], row["adjusted_p"], row["shift"], row["is_moved"], row["words"]) for row in rows
    ]


def _told_apart(
    sides: Sides, a: Side, b: Side, config: DriftConfig, key: str
) -> tuple[KernelTest | None, ClassifierTest | None, str]:
    """Both tests of the vectors, or why there are none."""
    if len(sides.shared) == len(sides.a.units) == len(sides.b.units):
        same = ClassifierTest(0.5, 0.5, 0.5, 1.0, np.zeros(0))
        return KernelTest(1.0, 0.0), same, "Both sets hold the same assets."
    if min(len(a.rows), len(b.rows)) < LEAST_ROWS:
        return None, None, f"Vectors were not compared: that takes {LEAST_ROWS} assets of each set, each of another burst or video, and there are {len(a.rows)} and {len(b.rows)}."
    rng = np.random.default_rng(int(hashlib.sha256((config.salt + key).encode()).hexdigest()[:16], 16))
    vectors = a.vectors(), b.vectors()
    return kernel_test(*vectors, config.permutations, rng), classifier_test(*vectors, config.permutations, rng), ""


def _described(found: AssetSet, side: Side, lack: Lack | None) -> SetSide:
    if lack is None:
        return SetSide(found.id, found.label, found.snapshot.id, len(found.rows), len(side.rows), 0, 0, 0, 1.0, False)
    return SetSide(
        found.id, found.label, found.snapshot.id, len(found.rows), len(side.rows), lack.asked, len(lack.ids), len(lack.exemplars), lack.by_chance, lack.is_more_than_chance
    )


def _extremes(classifier: ClassifierTest, a: Side, b: Side) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the assets of a that look least like b, and of b that look least like a, to a classifier that had not seen them."""
    towards_a, towards_b = -classifier.towards_b[: len(a.rows)], classifier.towards_b[len(a.rows) :]
    first, second = (side.ids[np.lexsort((side.ids, -score))[:SHOWN]].tolist() for side, score in ((a, towards_a), (b, towards_b)))
    return tuple(one.decode() for one in first), tuple(one.decode() for one in second)


def _result(findings: Findings, kernel: KernelTest | None, classifier: ClassifierTest | None) -> dict[str, object]:
    """All numbers, as plain JSON."""
    report = findings.report
    return {
        "a": asdict(report.a), "b": asdict(report.b), "shared": report.shared, "is_drifted": report.is_drifted, "p_value": report.p_value,
        "kernel": asdict(kernel) if kernel else None,
        "classifier": {name: getattr(classifier, name) for name in ("auc", "low", "high", "p_value")} if classifier else None,
        "columns": [{**asdict(one), "words": in_words(one) if one.is_moved else ""} for one in findings.columns], "note": report.note, "settings": findings.config.identity(),
    }  # fmt: skip
