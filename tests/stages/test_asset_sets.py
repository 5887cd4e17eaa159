"""What people name as a set: versions, sources, batches, expressions; each duplicate group once, nothing that is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from discovery.errors import ConfigError, InvalidInput, SpecError, UnknownRecord
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages.asset_sets import find_set
from discovery.stages.history import current_snapshot
from discovery.stages.open_index import open_index
from discovery.types import DatasetVersion, Manifest
from discovery.workspace import Workspace
from tests.stages.test_chain_laws import texture, workspace


@dataclass(frozen=True)
class Shop:
    ws: Workspace
    first: Path  # 12 pictures, of which 2 in a folder `few`, and a copy of one with other bytes
    second: Path  # 8 other pictures
    manifests: tuple[Manifest, Manifest]
    version: DatasetVersion

    def ids(self, text: str) -> list[str]:
        found = find_set(text, self.ws)
        return [name.decode() for name in open_index(found.snapshot, self.ws).ids(found.rows)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(4)
    first, second = folder / "first", folder / "second"
    for part in (first / "few", second):
        part.mkdir(parents=True)
    for number in range(12):
        texture(rng).save((first / "few" if number < 2 else first) / f"{number:02}.png")
    shutil.copy(first / "05.png", first / "copy.png")
    with (first / "copy.png").open("ab") as file:
        file.write(b"more bytes, the same pixels")
    for number in range(8):
        texture(rng).save(second / f"{number:02}.png")
    spec = parse_spec("name: some\nbudget: 5\nsplits: {train: 1.0}\n")
    with workspace(folder / "store") as ws:
        one = run_pipeline([str(first)], ws, spec=spec)
        two = run_pipeline([str(second)], ws)
        manifests = one.records["ingest"], two.records["ingest"]
        yield Shop(ws, first, second, manifests, one.records["curate"])  # type: ignore[arg-type]


def test_a_set_has_each_duplicate_group_once(shop: Shop) -> None:
    assert len(shop.ids("all")) == len(set(shop.ids("all"))) == 12 + 8  # the copy is in the group of 05.png
    assert len(shop.ids(f"source:{shop.first}")) == 12
    assert len(shop.ids(f"source:{shop.first}/few")) == 2
    assert len(shop.ids(f"source:{shop.first}/05.png")) == 1
    assert set(shop.ids(f"source:{shop.second}")) == set(shop.ids(f"manifest:{shop.manifests[1].id}"))


def test_a_copy_alone_stands_for_its_group(shop: Shop) -> None:
    assert shop.ids(f"source:{shop.first}/copy.png") == shop.ids(f"source:{shop.first}/05.png")


def test_an_expression_and_a_version_are_sets(shop: Shop) -> None:
    assert sorted(shop.ids("where: category = 'few'")) == sorted(shop.ids(f"source:{shop.first}/few"))
    assert len(shop.ids("some@1")) == 5
    found = find_set("some@1", shop.ws)
    assert found.id == shop.version.id and found.label == "some@1"
    assert found.snapshot.id == shop.version.snapshot_id != current_snapshot(shop.ws).id


def test_a_set_is_named_by_what_it_is(shop: Shop) -> None:
    one, same, other = (find_set(f"where:{text}", shop.ws) for text in ("width_px > 1", " width_px > 1 ", "width_px > 2"))
    assert one.id == same.id != other.id
    assert all(shop.ws.catalog.get_record(record_id).id == record_id for record_id in one.inputs)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("photos", ConfigError, "not a version"),
        ("photos@7", UnknownRecord, "photos@7"),
        ("where:widht_px > 3", SpecError, "width_px"),
        ("where:width_px < 0", InvalidInput, "empty"),
        ("source:/nowhere", InvalidInput, "empty"),
        ("manifest:0000", UnknownRecord, "0000"),
    ],
)
def test_what_is_no_set_is_refused(shop: Shop, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_set(text, shop.ws)


def test_a_batch_that_the_snapshot_lacks_is_refused(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="not in the index"):
        find_set(f"manifest:{shop.manifests[1].id}", shop.ws, find_set("some@1", shop.ws).snapshot)
