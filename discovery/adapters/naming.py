"""How a finished local file gets its name: unless another has it, in one step, and so that the name outlives a power cut."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from discovery.errors import StorageError

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})  # exFAT, FAT, some CIFS and FUSE
NO_FLAGS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})  # renameat2(2) of a file system that knows none
NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES})  # some CIFS, FUSE; no right to read
AT_FDCWD, RENAME_NOREPLACE = -100, 1  # of Linux


def take_name(draft: Path, target: Path) -> None:
    """Give a finished file its name. Raises FileExistsError when another has it; both are in one folder, the draft may stay.

    By a hard link, or where the file system has none by a rename that never replaces; both are one step, so that of many writers one
    gets the name and a killed one leaves nothing half-made. Looking first and renaming then would let the second replace the first.
    Raises StorageError when the file system has neither.
    """
    try:
        os.link(draft, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _rename(draft, target)


def _rename(draft: Path, target: Path) -> None:
    rename = _renameat2()
    failed = rename(AT_FDCWD, os.fsencode(draft), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) if rename else -1
    number = (ctypes.get_errno() if rename else errno.ENOSYS) if failed else 0
    if number in NO_FLAGS:
        raise StorageError(
            f"The file system of {target.parent} has neither hard links nor a rename that never replaces (renameat2), so that of two writers of "
            "one name the second could replace the first. Put it on another one, such as ext4, XFS, Btrfs, APFS or NFS; a root may also be in a bucket."
        )
    if number:
        raise OSError(number, os.strerror(number), str(draft), None, str(target))


@cache
def _renameat2() -> Any:
    """The function of the C library, or None where it has none, as outside Linux."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing; the folders in which something new was named, to be synced."""
    changed = []
    for missing in reversed(_missing(folder)):
        missing.mkdir(exist_ok=True)
        changed.append(missing.parent)
    return changed


def _missing(folder: Path) -> list[Path]:
    found = []
    while not folder.is_dir() and folder != folder.parent:
        found.append(folder)
        folder = folder.parent
    return found


def sync_folders(folders: Iterable[Path]) -> None:
    """Write the names in these folders to the disk; nothing happens where a file system cannot be asked to."""
    for folder in folders:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC:
                raise
