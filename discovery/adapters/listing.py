"""One object of a source, as a listing tells of it, and what no listing tells of: the files of the store itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from discovery.adapters.files import is_local, local_path
from discovery.addressing import sha256_hex
from discovery.types import Reason

GLOB_CHARACTERS = frozenset("*?[")
A_FOLDER = "a folder, where a list names files: name them one a row, or make the folder a source of its own"


class Listed(NamedTuple):
    """One object of a source, as its listing tells, before a byte is read; `modified_at` and `etag` as the source writes them.

    problem: why the listing itself says that it cannot be read (a folder without rights, a dangling link); empty for all others.
    problem_reason: of types.Reason, for a problem that is settled; else it may pass. attributes: JSON object of what a list says of it
    besides. named_by: the row of the list that did. hides: whether what was known at this address, or below it, may well be there still: it
    could not be looked at.
    """

    object_uri: str
    object_bytes: int
    modified_at: str
    etag: str = ""
    problem: str = ""
    attributes: str = ""
    hides: bool = False
    problem_reason: str = ""
    named_by: str = ""


def bad_row(address: str, problem: str) -> Listed:
    """A row of a list that names no object, or contradicts another; listed under its own address, so that it is accounted for."""
    # the tag tells this problem from another at the same row later
    return Listed(address, 0, "", sha256_hex(problem.encode()), problem, problem_reason=Reason.CORRUPT)


def batches(listed: Iterable[Listed], size: int) -> Iterator[list[Listed]]:
    """The stream in lists of at most `size`."""
    batch: list[Listed] = []
    for item in listed:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def fixed_head(uri: str) -> str:
    """What the address of every object of a source starts with.

    >>> fixed_head("s3://photos/2026-*/a.jpg"), fixed_head("/photos/")
    ('s3://photos/2026-', '/photos')
    """
    place = str(local_path(uri).absolute()) if is_local(uri) else uri.rstrip("/")
    cut = min((place.index(character) for character in GLOB_CHARACTERS & set(place)), default=len(place))
    return place[:cut]


@dataclass(frozen=True)
class LeftOut:
    """The places of stores, by what stays the same under other names: device and inode of folders, real paths, keys of a bucket.

    folders: never entered. paths, keys: nothing at or below these is listed; keys are `bucket/prefix/`.
    """

    folders: frozenset[tuple[int, int]] = frozenset()
    paths: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, stores: Sequence[str], own_folders: Iterable[str], source: str = "") -> Self:
        """Of a source that lies below a store's root (empty: of objects that a list names), only the folders that a store makes."""
        folders: set[tuple[int, int]] = set()
        paths: list[str] = []
        keys: list[str] = []
        for store in stores:
            if is_local(store):
                root = os.path.realpath(local_path(store))
                inside = [os.path.join(root, name) for name in own_folders]
                folders.update(identity for path in (root, *inside) if (identity := folder_identity(path)) is not None)
                head = os.path.realpath(_folder_of_head(source)) if source and is_local(source) else ""
                paths.extend(inside if not source or is_below(head, root) else [root])
            else:
                top = store.removeprefix("s3://").rstrip("/") + "/"
                head = fixed_head(source).removeprefix("s3://")
                is_inside = not source or (head.startswith(top) and head != top)
                keys.extend([f"{top}{name}/" for name in own_folders] if is_inside else [top])
        return cls(frozenset(folders), tuple(paths), tuple(keys))

    def has_path(self, real: str) -> bool:
        """Whether a real path (no links in it) is one of a store's own."""
        return any(real == path or is_below(real, path) for path in self.paths)

    def has_key(self, key: str) -> bool:
        """Whether `bucket/key` is one of a store's own."""
        return key.startswith(self.keys)


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies below a folder; neither ends with a slash.

    >>> is_below("/a/bc", "/a/b"), is_below("/a/b/c", "/a/b"), is_below("/a", "/")
    (False, True, True)
    """
    return path.startswith(folder.rstrip("/") + "/") and path != folder


def folder_identity(path: str) -> tuple[int, int] | None:
    """Device and inode, which tell one folder under two names; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _folder_of_head(source: str) -> str:
    """The last whole folder of what a local source starts with."""
    place, head = str(local_path(source).absolute()), fixed_head(source)
    return head if head == place else head.rpartition("/")[0] or "/"
