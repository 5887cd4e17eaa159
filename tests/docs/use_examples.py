"""Run by test_contributing in a copy of the library that has the examples: the whole chain with all three. Arguments: pictures, root."""

import json
import sys
from pathlib import Path

import numpy as np

import discovery
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.config import Config, EncoderConfig, S3Config
from discovery.core.measures import MEASURES, measure_image
from discovery.spec import parse_spec
from discovery.stages.asset_table import asset_table
from discovery.stages.check import check
from discovery.stages.curate import curate
from discovery.stages.dedupe import dedupe
from discovery.stages.embed import embed
from discovery.stages.history import current_snapshot
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.stages.score import score
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace, open_workspace

SPEC = """
name: from-the-page
budget: 4
where: "colourfulness > 0"
select: {method: central}
splits: {train: 0.5, test: 0.5}
"""


def main(pictures: str, root: str) -> dict[str, object]:
    encoder = load_encoder(EncoderConfig(name="colour_grid"), S3Config())
    data = [file.read_bytes() for file in sorted(Path(pictures).iterdir())]
    vectors = encode_pictures(encoder, data)
    alone = np.concatenate([encode_pictures(encoder, [one]) for one in data])

    config = Config(root=root).replace(encoder={"name": "colour_grid"}, dask={"scheduler": "inline"})
    with open_workspace(config) as ws:
        added = MEASURES.pop("colourfulness")  # a library that was filled before the measure was written
        run_chain(pictures, ws)
        MEASURES["colourfulness"] = added
        older = asset_table(current_snapshot(ws), ws, [])["colourfulness"].to_pylist()
        snapshot = run_chain(pictures, ws)
        newer = asset_table(current_snapshot(ws), ws, [])["colourfulness"].to_pylist()
        version = curate(parse_spec(SPEC), ws)
    return {
        "library": str(Path(discovery.__file__).parents[1]),
        "red": measure_image(np.full((4, 4, 3), (255, 0, 0), np.uint8))["colourfulness"],
        "grey": measure_image(np.full((1, 1, 3), 128, np.uint8))["colourfulness"],
        "older": older,
        "newer": newer,
        "embedded": ws.tally["embed_shard.computed"],
        "shape": list(vectors.shape),
        "dtype": str(vectors.dtype),
        "norms": np.linalg.norm(vectors, axis=1).tolist(),
        "batch_mates_matter": not np.array_equal(vectors, alone),
        "encoder_id": snapshot.encoder_id,
        "elements": snapshot.elements,
        "members": version.assets,
        "bound": version.optimality_bound,
        "leaked": version.leaked,
    }


def run_chain(pictures: str, ws: Workspace) -> IndexSnapshot:
    manifest = ingest([pictures], ws)
    report = check(manifest, ws)
    embeddings = embed(manifest, report, ws)
    duplicates = dedupe(manifest, embeddings, ws)
    score(manifest, embeddings, duplicates, ws)
    return index(manifest, embeddings, duplicates, ws)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
