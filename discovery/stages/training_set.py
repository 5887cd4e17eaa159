"""What a training process needs of a dataset version: ids, places, labels and classes of one split, and a reader of bytes with a local cache."""

from __future__ import annotations

import functools
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from discovery.adapters.byte_cache import ByteCache
from discovery.adapters.files import LocalFiles, is_local, local_path
from discovery.adapters.journal import FOLDER as JOURNAL
from discovery.adapters.storage import Store
from discovery.addressing import matches
from discovery.config import S3Config
from discovery.core.export_plan import classes_of
from discovery.errors import AccessDenied, ConfigError, SourceNotFound, StorageError, nearest
from discovery.stages.export_rows import find_numbered, members_of
from discovery.stages.shards import read_asset
from discovery.stages.versions import yank_of
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Members ascending by id; `labels` are numbers of `classes`, which are those of the whole version, -1 where there is none.

    version: name@number. yanked: by whom, when and why; empty when it was not.
    """

    version: str
    digest: str
    ids: tuple[str, ...]
    uris: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    yanked: str


def training_set(version: str, split: str | None, label: str, ws: Workspace) -> TrainingSet:
    """One split of a version, or all of it. Raises UnknownRecord for the version, ConfigError for a split or a label that it does not have."""
    record, number = find_numbered(version, ws)
    members = members_of(record, label, ws)
    if split is not None and split not in members.splits:
        raise ConfigError(f"{record.name}@{number} has no split {split!r}. {nearest(split, list(members.splits))}")
    classes = classes_of(members.examples)
    index = {name: place for place, name in enumerate(classes)}
    chosen = sorted((one for one in members.examples if split in (None, one.split)), key=lambda one: one.asset_id)
    return TrainingSet(
        f"{record.name}@{number}", record.digest, tuple(one.asset_id for one in chosen), tuple(one.source_uri for one in chosen),
        tuple(-1 if one.label is None else index[one.label] for one in chosen), classes, yank_of(record, ws),
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
        """The whole bytes. Raises CorruptArtifact when they changed, SourceNotFound when they are gone, StorageError. A cache that cannot be written ends nothing."""
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
            with suppress(OSError):
                cache.drop(asset_id)
        data = read_asset(store, asset_id, source_uri)
        if self.cache not in _unwritable:
            try:
                cache.put(asset_id, data)
            except (StorageError, AccessDenied, SourceNotFound) as error:
                _unwritable.add(self.cache)
                warnings.warn(f"{error} Nothing more is kept there by this process: pictures are read from the store each time.", stacklevel=2)
        return data


_unwritable: set[str] = set()  # caches that could not be written, each of which is warned of once a process


def check_is_there(root: str) -> None:
    """Raises SourceNotFound for a local root in which nothing was ever entered, so that reading makes neither folders nor a catalog there."""
    if is_local(root) and not (local_path(root) / JOURNAL).is_dir():
        raise SourceNotFound(f"There is no store at {local_path(root).absolute()}. Give the root that `discovery run` filled.")


@functools.lru_cache(maxsize=4)
def _store(root: str, s3: S3Config, process: int) -> Store:
    """An open store of this very process: connections of a parent do not survive a fork."""
    check_is_there(root)
    return Store(root, s3)
