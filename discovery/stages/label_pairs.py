"""Pairs for a person to label, from near to far, and what the labels say of the threshold of near-duplicates."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from discovery.addressing import content_id
from discovery.core.binomial import Threshold, choose_threshold, threshold_at
from discovery.errors import InvalidInput
from discovery.stages.copies import laid_on_each_other, propose, shows_enough
from discovery.stages.dedupe import load_assets, load_pictures, proposer_for
from discovery.stages.history import embedding_sets, snapshot_before
from discovery.stages.shards import sources_of
from discovery.types import EmbeddingSet, Manifest
from discovery.workspace import Workspace

COLUMNS = (
    "same", "asset_a", "asset_b", "source_a", "source_b", "difference", "relation", "pdq_distance", "cosine", "stratum", "weight",
)  # fmt: skip
STRATA = (0.01, 0.02, 0.04, 0.08, 0.2, 0.5)  # differences between strata; the usual threshold is in the middle
LOOKED_AT = 6000  # proposed pairs that are laid on each other
YES, NO = ("1", "y", "yes", "true", "same"), ("0", "n", "no", "false", "different")


def pairs_to_label(manifest: Manifest, embeddings: EmbeddingSet, ws: Workspace, count: int = 200) -> str:
    """CSV text of about `count` proposed pairs, as many from each stratum of differences as there are, the column `same` blank.

    Assets are those of `dedupe`. difference: as in the report, and 1 where nothing is alike or too little is to be seen. weight: how many
    proposed pairs each stands for. The choice is by digest, so it is the same each time. Raises InvalidInput when nothing is proposed.
    """
    sets = [*embedding_sets(snapshot_before(manifest, embeddings.encoder_id, ws), ws), embeddings]
    assets = load_assets(sets, ws)
    proposed = propose(assets, np.ones(len(assets.ids), bool), proposer_for(embeddings.encoder_id, ws), ws.config.dedupe)
    if not len(proposed):
        raise InvalidInput("No pair is proposed as copies: there is nothing to label.")
    mixed = sorted(proposed.tolist(), key=lambda pair: content_id(["label", assets.ids[pair[0]], assets.ids[pair[1]]]))
    looked_at = np.array(mixed[:LOOKED_AT], np.int64)
    pictures = load_pictures({assets.ids[row] for row in np.unique(looked_at)}, sets, ws)
    strata: list[list[dict[str, object]]] = [[] for _ in range(len(STRATA) + 1)]
    seen = {(pair.asset_a, pair.asset_b): (pair, rich) for pair, rich in laid_on_each_other(assets, looked_at, pictures)}
    for a, b in looked_at.tolist():
        pair, rich = seen.get((assets.ids[a], assets.ids[b]), (None, 0.0))
        difference = round(min(1.0, pair.difference), 6) if pair is not None and shows_enough(pair, rich, ws.config.dedupe) else 1.0
        stratum = int(np.searchsorted(STRATA, difference, side="left"))
        known = {"relation": pair.relation, "pdq_distance": pair.pdq_distance, "cosine": round(pair.cosine, 4)} if pair is not None else {}
        strata[stratum].append(
            {"same": "", "asset_a": assets.ids[a], "asset_b": assets.ids[b], "difference": difference, "stratum": stratum, **known}
        )
    uris = _uris(sets, ws)
    share = count // max(1, sum(bool(rows) for rows in strata))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for rows in strata:
        weight = len(rows) * len(proposed) / len(looked_at) / max(1, min(share, len(rows)))
        for row in rows[:share]:
            a, b = str(row["asset_a"]), str(row["asset_b"])
            writer.writerow({**row, "source_a": uris.get(a, ""), "source_b": uris.get(b, ""), "weight": round(weight, 4)})
    return sink.getvalue()


@dataclass(frozen=True, slots=True)
class Labels:
    """What labelled pairs say. configured: of the threshold in use. best: the largest one with the wanted precision. blank: rows left out."""

    pairs: int
    same: int
    blank: int
    configured: Threshold
    best: Threshold


def read_labels(text: str, ws: Workspace, min_precision: float = 0.99) -> Labels:
    """The worth of thresholds on labelled CSV text as `pairs_to_label` makes it; blank labels are left out.

    Raises InvalidInput: a column is missing, a label or number cannot be read (with its line), or all labels are of one kind.
    """
    reader = csv.DictReader(io.StringIO(text))
    if missing := {"same", "difference", "weight"} - set(reader.fieldnames or ()):
        raise InvalidInput(f"The labelled pairs lack the columns {', '.join(sorted(missing))}. Write them with `discovery dedupe --label-pairs`.")
    scores, labels, weights, blank = [], [], [], 0
    for row in reader:
        label = (row["same"] or "").strip().lower()
        if not label:
            blank += 1
            continue
        if label not in (*YES, *NO):
            raise InvalidInput(f"Line {reader.line_num}: same is {label!r}, expected one of {', '.join((*YES, *NO))}, or nothing.")
        try:
            score, weight = float(row["difference"]), float(row["weight"])
        except (TypeError, ValueError):
            raise InvalidInput(f"Line {reader.line_num}: difference and weight must be numbers.") from None
        if not (0 <= score <= 1 and 0 < weight < float("inf")):
            raise InvalidInput(f"Line {reader.line_num}: difference must be from 0 to 1 and weight over 0.")
        scores.append(score)
        labels.append(label in YES)
        weights.append(weight)
    arrays = np.array(scores, np.float64), np.array(labels, bool), np.array(weights, np.float64)
    return Labels(
        len(labels), sum(labels), blank, threshold_at(ws.config.dedupe.max_difference, *arrays), choose_threshold(*arrays, min_precision)
    )


def _uris(sets: list[EmbeddingSet], ws: Workspace) -> dict[str, str]:
    """One source of each asset, the newest manifest's."""
    found: dict[str, str] = {}
    for embedded in sets:
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        found.update(sources_of(manifest, ws) if manifest is not None else {})
    return found
