"""Encoders in the chain: projections of vectors that are there, vectors kept in half the space, words as queries, strangers refused."""

from pathlib import Path

import numpy as np
import pytest

from discovery.config import Config
from discovery.errors import EncoderMismatch, InvalidInput, UnknownRecord
from discovery.spec import parse_spec
from discovery.stages.check import check
from discovery.stages.curate import curate
from discovery.stages.dedupe import dedupe
from discovery.stages.embed import embed
from discovery.stages.history import current_snapshot, embedding_sets
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.stages.project import fit, load_projection
from discovery.stages.score import score
from discovery.stages.search import search
from discovery.stages.shards import load_vectors
from discovery.stages.verify import verify
from discovery.types import EmbeddingSet
from discovery.workspace import Workspace, open_workspace
from tests.adapters.test_clip_encoder import make_clip

SPEC = parse_spec("name: some\nbudget: 8\n")


def workspace(root: Path, **encoder: object):
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, encoder=encoder))


def indexed(source: Path, ws: Workspace, reference: str = "") -> EmbeddingSet:
    """The chain from a source to its index."""
    manifest = ingest([str(source)], ws)
    embeddings = embed(manifest, check(manifest, ws), ws)
    duplicates = dedupe(manifest, embeddings, ws)
    score(manifest, embeddings, duplicates, ws, reference)
    index(manifest, embeddings, duplicates, ws)
    return embeddings


@pytest.fixture(scope="module")
def chain(tmp_path_factory, tiny_pictures) -> tuple[Path, str, str]:
    """A root with the default encoder's index; the ids of a projection to 6 dimensions and of a version of 8 members."""
    root = tmp_path_factory.mktemp("encoders") / "root"
    with workspace(root) as ws:
        indexed(tiny_pictures, ws)
        projection = fit(ws, 6, 0.5)
        assert (projection.rows, projection.dim) == (12, 6) and 0.5 < projection.explained < 1
        assert fit(ws, 6, 0.5) == projection
        return root, projection.id, curate(SPEC, ws).id


def vectors_in(ws: Workspace) -> tuple[list[str], np.ndarray]:
    return load_vectors(embedding_sets(current_snapshot(ws), ws), ws)


def test_a_projection_embeds_nothing_again_and_its_vectors_are_those_of_the_matrix(chain, tiny_pictures, monkeypatch):
    root, projection_id, _ = chain
    with workspace(root) as ws:
        ids, plain = vectors_in(ws)
        expected = load_projection(ws.catalog.find_record(projection_id), ws)(plain)
    with workspace(root, projection=projection_id[:12]) as ws:
        embeddings = indexed(tiny_pictures, ws)
        assert (ws.tally["embed_shard.computed"], ws.tally["embed_shard.projected"]) == (0, 12)
        projected_ids, projected = vectors_in(ws)
        assert projected_ids == ids and projected.shape == (12, 6) and (projected == expected).all()
        assert (embeddings.dim, current_snapshot(ws).dim) == (6, 6)
        shard = ws.catalog.get_record(embeddings.shards[0])
        assert projection_id in shard.inputs and len(shard.inputs) == 2  # lineage: the model's vectors, and the axes
        assert indexed(tiny_pictures, ws) == embeddings and ws.tally["embed_shard.projected"] == 12
        picture = sorted(tiny_pictures.iterdir())[3]
        (nearest, *_) = search(ws, images=[picture], k=3).results
        assert Path(nearest.source_uri).name == picture.name and nearest.distance < 1e-5
        assert verify(ws).corrupt == verify(ws).missing == []
    with workspace(root) as ws:  # both live side by side: the model's own index is still the one of these settings
        assert current_snapshot(ws).dim == 1280


def test_what_is_known_costs_no_vector_to_find(tmp_path, tiny_pictures, monkeypatch):
    with workspace(tmp_path) as ws:
        first = indexed(tiny_pictures, ws)
        table = first.shards[0]
        more = tmp_path / "more"
        more.mkdir()
        for number in (0, 1):
            (more / f"{number}.png").write_bytes((tiny_pictures / f"{number:02}.png").read_bytes() + b" another file")
        manifest = ingest([str(tiny_pictures), str(more)], ws)
        report = check(manifest, ws)
        plain = ws.store.files.read
        read: list[str] = []
        monkeypatch.setattr(ws.store.files, "read", lambda path: read.append(path) or plain(path))
        embeddings = embed(manifest, report, ws)
        assert (embeddings.assets, ws.tally["embed_shard.computed"], ws.tally["embed_shard.reused"]) == (14, 14, 12)
        assert not [path for path in read if table in path and path.endswith(".parquet")]


def test_a_projection_fitted_on_a_version_knows_its_members_alone(chain):
    root, _, version_id = chain
    with workspace(root) as ws:
        assert fit(ws, 3, 0.0, version_id).rows == 8
        with pytest.raises(InvalidInput, match="needs 1 to 1280 of them and more than 9 vectors; there are 8"):
            fit(ws, 9, 0.0, version_id)


def test_what_does_not_fit_together_is_refused(chain, tiny_pictures):
    root, projection_id, version_id = chain
    with workspace(root, pooling="gem", projection=projection_id) as ws, pytest.raises(EncoderMismatch, match="was fitted on tf_efficientnet_lite0@"):
        current_snapshot(ws)
    with workspace(root, projection="0" * 12) as ws, pytest.raises(UnknownRecord):
        current_snapshot(ws)
    with workspace(root, pooling="gem") as ws:
        with pytest.raises(InvalidInput, match="There is no index of"):
            fit(ws, 2)
        with pytest.raises(EncoderMismatch, match=f"{version_id} is of encoder tf_efficientnet_lite0@"):
            fit(ws, 2, 0.0, version_id)
        with pytest.raises(EncoderMismatch, match=f"{version_id} is of encoder .*, the candidates were embedded by"):
            indexed(tiny_pictures, ws, reference=version_id)


def test_vectors_kept_as_float16_are_within_the_promise_and_of_length_1_and_mix_with_others(tmp_path, tiny_pictures):
    halves = tmp_path / "half of it"
    halves.mkdir()
    for file in sorted(tiny_pictures.iterdir())[:5]:
        (halves / file.name).write_bytes(file.read_bytes())
    with workspace(tmp_path / "root", stored="float16") as ws:
        shard = ws.catalog.get_record(indexed(halves, ws).shards[0])
        assert str(ws.store.read_table(shard)["vector"].type.value_type) == "halffloat"
    with workspace(tmp_path / "root") as ws:
        indexed(tiny_pictures, ws)
        assert (ws.tally["embed_shard.computed"], ws.tally["embed_shard.reused"]) == (7, 5)
        ids, mixed = vectors_in(ws)
    with workspace(tmp_path / "other root") as ws:
        indexed(tiny_pictures, ws)
        other_ids, exact = vectors_in(ws)
    assert ids == other_ids and 0 < np.abs(mixed - exact).max() < 1e-3
    assert 1 - (mixed * exact).sum(axis=1).min() < 1e-6 and np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-6)


def test_words_find_what_the_text_tower_says_and_other_encoders_know_none(chain, tmp_path, tiny_pictures):
    root, *_ = chain
    clip = {"name": f"open_clip:local-dir:{make_clip(tmp_path / 'clip')}"}
    with workspace(tmp_path / "root", **clip) as ws:
        indexed(tiny_pictures, ws)
        ids, vectors = vectors_in(ws)
        from discovery.adapters.encoders import load_encoder

        text = load_encoder(ws.config.encoder, ws.config.s3).encode_texts(["two dogs"])[0]
        order = [ids[row] for row in np.argsort(-vectors @ text)]
        found = search(ws, texts=["two dogs"], k=12).results
        assert [r.asset_id for r in found] == order
        assert found[0].distance == pytest.approx(1 - (vectors @ text).max(), abs=1e-5)
    with workspace(root) as ws, pytest.raises(InvalidInput, match="tf_efficientnet_lite0 knows no words"):
        search(ws, texts=["two dogs"])
