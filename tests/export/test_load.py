"""discovery.load: a version as a torch Dataset, read from a folder or a bucket, with a cache that stays within its bytes."""

from __future__ import annotations

import inspect
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import discovery
from discovery.adapters.byte_cache import ByteCache
from discovery.adapters.files import make_bucket
from discovery.adapters.storage import asset_path
from discovery.addressing import sha256_hex
from discovery.config import S3Config
from discovery.core.export_plan import ExportOptions
from discovery.core.standing import Yank, with_yank
from discovery.errors import ConfigError, CorruptArtifact, SourceNotFound, UnknownRecord
from discovery.stages import training_set as training_set_module
from discovery.stages.export import export, plan_export
from discovery.stages.training_set import CachedReader
from discovery.stages.versions import move
from discovery.workspace import Workspace
from tests.contracts.conftest import s3_url  # noqa: F401
from tests.contracts.s3_server import CREDENTIALS
from tests.export.conftest import fill, settings


def to_tensor(image: Image.Image) -> torch.Tensor:
    """(3, 32, 32) in [0, 1]; at module level, since workers get it by pickle."""
    return torch.from_numpy(np.asarray(image.resize((32, 32)), np.float32) / 255).permute(2, 0, 1)


def test_importing_discovery_loads_no_torch_and_load_is_there() -> None:
    code = "import sys, discovery, discovery.api, discovery.stages.export; assert callable(discovery.load); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False"


def test_items_are_upright_pictures_with_the_labels_of_the_version(store: Path, ws: Workspace) -> None:
    plan = plan_export("photos@1", "list", ws, ExportOptions())
    examples = {one.asset_id: one for one in plan.examples}
    loaded = discovery.load("photos@1", root=store)
    assert isinstance(loaded, Dataset) and len(loaded) == len(examples)
    assert loaded.ids == tuple(sorted(examples)) and loaded.classes == plan.classes
    assert loaded.class_to_idx == {name: number for number, name in enumerate(plan.classes)}
    for place, asset_id in enumerate(loaded.ids):
        image, label = loaded[place]
        example = examples[asset_id]
        assert (image.mode, image.size) == ("RGB", (example.width_px, example.height_px))
        assert label == (-1 if example.label is None else loaded.class_to_idx[example.label])
    assert loaded[-1].label == loaded.labels[-1]
    with pytest.raises(IndexError):
        loaded[len(loaded)]


def test_splits_share_the_numbers_of_classes_and_no_member(store: Path) -> None:
    train, test = (discovery.load("photos@1", split=split, root=store) for split in ("train", "test"))
    assert train.classes == test.classes and not set(train.ids) & set(test.ids)
    assert set(train.ids) | set(test.ids) == set(discovery.load("photos@1", root=store).ids)
    with pytest.raises(ConfigError, match=r"no split 'tran'.*Did you mean \"train\""):
        discovery.load("photos@1", split="tran", root=store)
    with pytest.raises(UnknownRecord):
        discovery.load("photos@9", root=store)
    assert discovery.load("photos@1", root=store, label="kind").classes == ("kind 0", "kind 1", "kind 2")


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_workers_of_a_data_loader_give_what_one_process_gives(context: str, store: Path) -> None:
    loaded = discovery.load("photos@1", root=store, transform=to_tensor)
    alone = [loaded[place] for place in range(len(loaded))]
    images, labels = [], []
    for batch in DataLoader(loaded, batch_size=4, num_workers=2, multiprocessing_context=context):
        assert batch.image.shape[1:] == (3, 32, 32)
        images.append(batch.image)
        labels += batch.label.tolist()
    assert torch.equal(torch.cat(images), torch.stack([one.image for one in alone]))
    assert labels == [one.label for one in alone]


def test_threads_may_share_one_and_a_pickled_one_is_the_same(store: Path) -> None:
    loaded = discovery.load("photos@1", root=store)
    expected = [loaded[place].image.tobytes() for place in range(len(loaded))]
    copy = pickle.loads(pickle.dumps(loaded))
    found: list[list[bytes]] = []

    def read() -> None:
        found.append([item.image.tobytes() for item in copy.__getitems__(range(len(copy)))])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_changed_bytes_are_never_given(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    loaded = discovery.load("photos@1", root=tmp_path / "store")
    path = tmp_path / "store" / asset_path(loaded.ids[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact):
        loaded[0]
    assert loaded[1].image.mode == "RGB"


def test_a_dataset_says_which_version_it_is(store: Path, ws: Workspace) -> None:
    loaded = discovery.load("photos@1", split="train", root=store)
    assert (loaded.version, loaded.digest) == ("photos@1", plan_export("photos@1", "list", ws, ExportOptions()).digest)
    assert pickle.loads(pickle.dumps(loaded)).version == "photos@1"
    (record,) = ws.catalog.records("curate")
    assert discovery.load(record.id, root=store).version == "photos@1"


def test_a_yanked_version_is_loaded_and_exported_with_a_word_on_it(own_ws: Workspace, tmp_path: Path) -> None:
    yank = Yank("half of the labels are wrong", "ann", "2026-11-01T00:00:00+00:00")
    move("photos", lambda standing: with_yank(standing, 1, yank), "yank", "ann", own_ws)
    with pytest.warns(UserWarning, match=r"photos@1 should not be trained on: it was yanked by ann on 2026-11-01.*: half of the labels are wrong"):
        discovery.load("photos@1", root=own_ws.config.root)
    for _ in ("new", "checked"):
        done = export("photos@1", "list", str(tmp_path / "out"), own_ws)
        assert "photos@1 should not be trained on: it was yanked by ann" in done.note
    move("photos", lambda standing: with_yank(standing, 1, None), "unyank", "ann", own_ws)
    done = export("photos@1", "list", str(tmp_path / "out"), own_ws)
    assert done.note == "" and done.resumed > 0  # the same export: what is said of a version is no part of it


def test_a_relative_root_stays_where_it_was_when_the_process_goes_elsewhere(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.parent)
    loaded = discovery.load("photos@1", root=store.name, cache="cache")
    monkeypatch.chdir(tmp_path)
    training_set_module._store.cache_clear()
    assert loaded[0].image.mode == "RGB" and list(tmp_path.iterdir()) == []
    assert loaded._read.cache == str(store.parent / "cache")  # type: ignore[attr-defined]


def test_a_root_that_is_not_there_is_told_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFound, match=r"There is no store at .*/stoer"):
        discovery.load("photos@1", root="stoer")
    with pytest.raises(SourceNotFound, match="There is no store at"):
        discovery.load("photos@1", root=".")  # a folder, but nobody's store
    with pytest.raises(SourceNotFound, match="There is no store at"):
        CachedReader(str(tmp_path / "gone"), S3Config(), "", 0)("0" * 64, "/nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told_once_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store" / "journal").mkdir(parents=True)
    (tmp_path / "cache").write_text("a file, under which nothing can be made")
    monkeypatch.setattr(training_set_module, "read_asset", lambda store, asset_id, uri: b"bytes")
    read = CachedReader(str(tmp_path / "store"), S3Config(), str(tmp_path / "cache"), 1000)
    with pytest.warns(UserWarning, match="cache.*Nothing more is kept there") as warned:
        assert [read(sha256_hex(bytes([number])), "s3://bucket/one.png") for number in range(3)] == [b"bytes"] * 3
    assert len(warned) == 1


# of a bucket, with a cache


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Root of a store on S3, and the settings file that reaches it."""
    url = request.getfixturevalue("s3_url")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        root = "s3://loading/store"
        make_bucket(root, S3Config(endpoint_url=url))
        fill(source, settings(root, S3Config(endpoint_url=url)))
        file = tmp_path_factory.mktemp("settings") / "discovery.toml"
        file.write_text(f'[s3]\nendpoint_url = "{url}"\n')
        yield root, file


def held(cache: Path) -> int:
    """Bytes in a cache's folder; the others may be making room in it."""
    sizes = []
    for path in cache.glob("??/*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


@pytest.mark.live
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_bucket_is_read_once_and_then_the_cache_is(bucket: tuple[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, config = bucket
    cache = tmp_path / "cache"
    loaded = discovery.load("photos@1", root=root, config=config, transform=to_tensor, cache=cache)
    local = discovery.load("photos@1", root=store, transform=to_tensor)
    assert loaded.ids == local.ids
    assert loaded[0].label == local[0].label  # opens the store in this process before workers are forked
    found = [batch.image for batch in DataLoader(loaded, batch_size=3, num_workers=2)]
    assert torch.equal(torch.cat(found), torch.stack([local[place].image for place in range(len(local))]))
    assert held(cache) == sum((store / asset_path(one)).stat().st_size for one in loaded.ids)

    def refuse(*arguments: Any) -> bytes:
        raise AssertionError("the bucket was read again")

    monkeypatch.setattr("discovery.stages.training_set.read_asset", refuse)
    assert torch.equal(torch.stack([one.image for one in loaded.__getitems__(range(len(loaded)))]), torch.cat(found))


@pytest.mark.live
def test_what_was_changed_in_the_cache_is_fetched_again(bucket: tuple[str, Path], tmp_path: Path) -> None:
    root, config = bucket
    loaded = discovery.load("photos@1", root=root, config=config, cache=tmp_path)
    before = loaded[3].image.tobytes()
    (file,) = tmp_path.glob("??/*")
    data = file.read_bytes()
    file.write_bytes(b"x" * len(data))
    assert loaded[3].image.tobytes() == before and file.read_bytes() == data


@pytest.mark.live
def test_the_cache_stays_within_its_bytes_and_may_be_left_out(bucket: tuple[str, Path], tmp_path: Path) -> None:
    root, config = bucket
    limit = 60_000
    loaded = discovery.load("photos@1", root=root, config=config, cache=tmp_path / "cache", cache_bytes=limit)
    most = 0
    for place in range(len(loaded)):
        assert loaded[place].image.mode == "RGB"
        most = max(most, held(tmp_path / "cache"))
    assert limit // 2 < most <= limit
    without = discovery.load("photos@1", root=root, config=config, cache="")
    assert without[0].image.tobytes() == loaded[0].image.tobytes()


def test_what_was_used_longest_ago_leaves_the_cache_first(tmp_path: Path) -> None:
    import os

    cache = ByteCache(tmp_path, 100)
    ids = [sha256_hex(bytes([number])) for number in range(6)]
    for number, one in enumerate(ids[:5]):
        cache.put(one, bytes(20))
        os.utime(tmp_path / one[:2] / one, (number, number))
    assert cache.get(ids[0]) == bytes(20)  # used now
    cache.put(ids[5], bytes(20))  # 120 of 100: room is made down to 90 with it, so 2 go
    assert [one for one in ids if cache.get(one) is None] == ids[1:3]
    cache.put(ids[1], bytes(101))  # over the limit by itself
    assert cache.get(ids[1]) is None


def test_processes_and_threads_that_fill_one_cache_stay_within_its_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib\nfrom contextlib import suppress\nfrom pathlib import Path\n"
        "from discovery.adapters.byte_cache import ByteCache\n"
        f"{inspect.getsource(held)}\n"
        "cache = ByteCache(Path(sys.argv[1]), 5000)\n"
        "for number in range(100):\n"
        "    cache.put(hashlib.sha256(f'{sys.argv[2]} {number}'.encode()).hexdigest(), bytes(100))\n"
        "    assert held(cache.folder) <= 5000\n"
    )
    project = Path(__file__).parents[2]
    running = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(tmp_path), str(number)], cwd=project) for number in range(3)]
    assert [process.wait(timeout=200) for process in running] == [0, 0, 0]
    assert 4000 <= held(tmp_path) <= 5000
