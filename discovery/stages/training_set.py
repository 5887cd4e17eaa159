"""What a training process needs of a dataset version: ids, places, labels and classes of one split, and a reader of bytes with a local cache."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from discovery.adapters.byte_cache import ByteCache
from discovery.adapters.files import LocalFiles, is_local
from discovery.adapters.storage import Store
from discovery.addressing import matches
from discovery.config import S3Config
from discovery.core.export_plan import classes_of
from discovery.errors import ConfigError, nearest
from discovery.stages.export_rows import examples_of, find_numbered
from discovery.stages.shards import read_asset
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Members ascending by id; `labels` are numbers of `classes`, which are those of the whole version, -1 where there is none."""

    version: str
    digest: str
    ids: tuple[str, ...]
    uris: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def training_set(version: str, split: str | None, label: str, ws: Workspace) -> TrainingSet:
    """One split of a version, or all of it. Raises UnknownRecord for the version, ConfigError for a split or a label that it does not have."""
    record, number = find_numbered(version, ws)
    _, splits, examples = examples_of(record, label, ws)
    if split is not None and split not in splits:
        raise ConfigError(f"{record.name}@{number} has no split {split!r}. {nearest(split, list(splits))}")
    classes = classes_of(examples)
    index = {name: place for place, name in enumerate(classes)}
    chosen = sorted((one for one in examples if split in (None, one.split)), key=lambda one: one.asset_id)
    return TrainingSet(
        f"{record.name}@{number}", record.digest, tuple(one.asset_id for one in chosen), tuple(one.source_uri for one in chosen),
        tuple(-1 if one.label is None else index[one.label] for one in chosen), classes,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CachedReader:
    """Reads bytes of assets, each time checked against their id; those of a remote store or source are kept in a folder of this machine.

    It is small and picklable: every process opens the store for itself. cache: the folder, empty for none.
    """

    root: str
    s3: S3Config
    cache: str
    cache_bytes: int

    def __call__(self, asset_id: str, source_uri: str) -> bytes:
        """The whole bytes. Raises CorruptArtifact when they changed, SourceNotFound when they are gone, StorageError."""
        store = _store(self.root, self.s3, os.getpid())
        if isinstance(store.files, LocalFiles):
            if is_local(source_uri):
                return read_asset(store, asset_id, source_uri)
            try:
                return store.get_asset(asset_id)
            except FileNotFoundError:
                pass  # it stays at its remote source
        if not self.cache:
            return read_asset(store, asset_id, source_uri)
        cache = ByteCache(Path(self.cache), self.cache_bytes)
        if (data := cache.get(asset_id)) is not None:
            if matches(data, asset_id):
                return data
            cache.drop(asset_id)
        data = read_asset(store, asset_id, source_uri)
        cache.put(asset_id, data)
        return data


@functools.lru_cache(maxsize=4)
def _store(root: str, s3: S3Config, process: int) -> Store:
    """An open store of this very process: connections of a parent do not survive a fork."""
    return Store(root, s3)
