"""What an encoder change would cost is told before it is made, from what was measured, and nothing is embedded for it."""

import json
from pathlib import Path

import pytest

from discovery.cli import main
from discovery.config import Config
from discovery.stages.check import check
from discovery.stages.dedupe import dedupe
from discovery.stages.embed import embed
from discovery.stages.encoder_change import encoder_change
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.workspace import open_workspace


def workspace(root: Path, **encoder: object):
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, encoder=encoder))


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_pictures) -> Path:
    """An index of 12 pictures by the default encoder, and vectors of them pooled by mean, but no index of those."""
    folder = tmp_path_factory.mktemp("change") / "root"
    for encoder in ({}, {"pooling": "mean"}):
        with workspace(folder, **encoder) as ws:
            manifest = ingest([str(tiny_pictures)], ws)
            embeddings = embed(manifest, check(manifest, ws), ws)
            if not encoder:
                index(manifest, embeddings, dedupe(manifest, embeddings, ws), ws)
    return folder


def test_nothing_is_missing_for_the_encoder_in_use(root):
    with workspace(root) as ws:
        change = encoder_change(ws)
    assert (change.assets, change.missing, change.worker_s, change.vector_bytes, change.has_index) == (12, 0, 0.0, 0, True)
    assert change.sentence.endswith("has a vector of each of 12 indexed assets: nothing to embed.")


def test_a_new_encoder_is_tried_on_a_sample_and_costs_what_that_took(root, tiny_pictures):
    with workspace(root, pooling="gem") as ws:
        before = set(ws.store.committed_keys("embed_shard"))
        change = encoder_change(ws)
        assert set(ws.store.committed_keys("embed_shard")) == before
    assert (change.missing, change.has_index, change.dim) == (12, False, 1280)
    assert change.bytes_to_read == sum(file.stat().st_size for file in tiny_pictures.iterdir())
    assert change.rate_from == "measured here on 12 of them" and change.worker_s == pytest.approx(12 / change.images_per_s, rel=0.05, abs=0.06)
    assert change.vector_bytes == 12 * 1280 * 4 and change.index_bytes > change.vector_bytes
    assert len(change.current) == 1 and change.current[0] != change.encoder_id


def test_the_rate_of_an_encoder_with_shards_is_theirs(root, tmp_path, tiny_pictures):
    more = tmp_path / "more"
    more.mkdir()
    (more / "new.png").write_bytes((tiny_pictures / "00.png").read_bytes() + b" another file, the same pixels")
    with workspace(root) as ws:
        manifest = ingest([str(more)], ws)
        embeddings = embed(manifest, check(manifest, ws), ws)
        index(manifest, embeddings, dedupe(manifest, embeddings, ws), ws)
    with workspace(root, pooling="mean") as ws:
        change = encoder_change(ws)
        seconds = sum(record.total_s for record in ws.catalog.records("embed_shard") if record.producer == change.encoder_id)
    assert (change.assets, change.missing, change.rate_from) == (13, 1, "as its shards so far took")
    assert change.images_per_s == pytest.approx(12 / seconds, abs=0.01)


def test_the_command_tells_and_merges_nothing_on_a_dry_run(root, capsys, monkeypatch):
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    assert main(["maintain", "--dry-run", "--root", str(root), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["index_id"] is None and answer["encoder_change"]["missing"] == 0
    assert main(["maintain", "--compact", "--root", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == 1
