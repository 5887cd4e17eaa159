"""Themes of a novelty report: the discoveries in groups, each with an exemplar and the words of its folders and labels."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery import schemas
from discovery.core.draws import draw
from discovery.core.themes import LONGEST_WORD, USUAL_ROWS, telling_words, theme_width, themes
from discovery.stages.shards import vectors_for
from discovery.types import EmbeddingSet, Manifest
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Themes:
    """of: (n,) int32 theme of each candidate, -1 for none. table: one row a theme, the largest first (schemas.THEMES)."""

    of: NDArray[np.int32]
    table: pa.Table


def find_themes(ids: NDArray[np.bytes_], is_novel: NDArray[np.bool_], manifest: Manifest, embeddings: EmbeddingSet, ws: Workspace) -> Themes:
    """Group the novel ones among the candidates (n,) S64 ids, ascending.

    How alike the pictures of a theme are, `core.themes.theme_width` takes from the batch.
    """
    of = np.full(len(ids), -1, np.int32)
    rows = np.flatnonzero(is_novel)
    if not len(rows):
        return Themes(of, schemas.THEMES.empty_table())
    usual = vectors_for([embeddings], ids[np.sort(draw(ids, USUAL_ROWS, "themes"))], ws)
    vectors = vectors_for([embeddings], ids[rows], ws)
    found = themes(vectors, ids[rows], theme_width(usual))
    of[rows] = found.group
    words = words_of(ids, manifest, ws)
    table = []
    for number, exemplar in enumerate(found.exemplars.tolist()):
        mine = rows[found.group == number]
        telling = telling_words([words[row] for row in mine.tolist()], words)
        table.append(
            {"theme": number, "exemplar": ids[rows[exemplar]].decode(), "assets": len(mine), "words": [word for word, _ in telling],
             "word_assets": [count for _, count in telling]}
        )  # fmt: skip
    return Themes(of, pa.Table.from_pylist(table, schema=schemas.THEMES))


def words_of(ids: NDArray[np.bytes_], manifest: Manifest, ws: Workspace) -> list[frozenset[str]]:
    """For each asset the names of its folders and the short texts that lists and sidecars say of it."""
    listed = ws.store.read_table(manifest, columns=["asset_id", "folder", "attributes"])
    listed = listed.filter(pc.is_in(listed["asset_id"], pa.array(ids.astype("U64"))))
    found: dict[str, set[str]] = {}
    for row in listed.to_pylist():
        said = json.loads(row["attributes"]) if row["attributes"] else {}
        labels = {value.strip() for value in said.values() if isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_WORD}
        found.setdefault(row["asset_id"], set()).update({row["folder"]} if row["folder"] else set(), labels)
    return [frozenset(found.get(one.decode(), ())) for one in ids]
