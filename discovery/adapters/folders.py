"""What folders and globs of this machine hold: links are followed, each real folder is listed once, and no folder is held in memory."""

from __future__ import annotations

import errno
import fnmatch
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

import numpy as np

from discovery.adapters.listing import A_FOLDER, GLOB_CHARACTERS, LeftOut, Listed

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # the name leads nowhere; any other error says nothing of what is there
PAGE = 10_000  # files looked at together
State = frozenset[int] | None  # which parts of a pattern a name inside a folder may be; None: everything below is wanted
NOTHING: State = frozenset()


class Pattern:
    """A glob, part by part, as a walk goes down: `*`, `?` and `[]` within a name, `**` for any folders; a folder that matches is wanted whole.

    Names that begin with a dot match only parts that begin with one.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        """parts: those from the first that is no plain name."""
        self._is_any = [part == "**" for part in parts]
        self._matches = [_matcher(part) for part in parts]
        self.start = self._closed({0})

    def into(self, state: State, name: str) -> State:
        """The state inside a folder of that name; NOTHING when nothing below it can match."""
        if state is None:
            return None
        following: set[int] = set()
        for number in state:
            if self._is_any[number]:
                following |= set() if name.startswith(".") else {number}
            elif self._matches[number](name):
                if number == len(self._matches) - 1:
                    return None
                following.add(number + 1)
        return self._closed(following)

    def takes(self, state: State, name: str) -> bool:
        """Whether a file of that name is wanted."""
        last = len(self._matches) - 1
        return state is None or (last in state and self._matches[last](name))

    def _closed(self, numbers: set[int]) -> State:
        """`**` may be no folder at all; at the end it is everything."""
        for number in sorted(numbers):
            while number < len(self._is_any) and self._is_any[number]:
                if number == len(self._is_any) - 1:
                    return None
                number += 1
                numbers.add(number)
        return frozenset(numbers)


def _matcher(part: str) -> Callable[[str], bool]:
    if not GLOB_CHARACTERS & set(part):
        return part.__eq__
    expression = re.compile(fnmatch.translate(part))
    return lambda name: (part.startswith(".") or not name.startswith(".")) and expression.match(name) is not None


EVERYTHING = Pattern(["**"])


def list_folder(top: str, left_out: LeftOut, pattern: Pattern = EVERYTHING) -> Iterator[Listed]:
    """Every file below a folder that the pattern wants, as it is found.

    A link to a folder is followed. A real folder that several names lead to is listed under one of them, once: the one without links where
    there is one, else that of the link that comes first by name; so loops end, and no order of the file system matters. What cannot be looked
    at is listed with its problem. In memory: device and inode of each folder, the folders still to be listed, and PAGE files. Raises OSError
    when the top itself cannot be opened.
    """
    with os.scandir(top):  # a folder inside it that cannot be opened becomes a rejection
        pass
    yield from _Walk(left_out, pattern).below(top)


class _Walk:
    """One walk: folders without links first, then the links that were met, by name."""

    def __init__(self, left_out: LeftOut, pattern: Pattern) -> None:
        self.left_out = left_out
        self.pattern = pattern
        self.seen: dict[tuple[int, int], tuple[State, ...]] = {}  # by identity; several states only where parts of a pattern overlap
        self.folders: list[tuple[str, State]] = []
        self.links: list[tuple[str, int, State]] = []  # a heap; the number so that states are never compared

    def below(self, top: str) -> Iterator[Listed]:
        self.links.append((top, 0, self.pattern.start))
        while self.folders or self.links:
            if self.folders:
                folder, state = self.folders.pop()
            else:
                folder, _, state = heapq.heappop(self.links)
                if self.left_out.has_path(os.path.realpath(folder)):
                    continue
            try:
                yield from self._inside(folder, state)
            except OSError as error:
                yield _unseen(folder, error, "folder cannot be listed: ")

    def _inside(self, folder: str, state: State) -> Iterator[Listed]:
        found = os.stat(folder)
        identity = found.st_dev, found.st_ino
        before = self.seen.get(identity, ())
        if identity in self.left_out.folders or state in before or None in before:
            return
        self.seen[identity] = (*before, state)
        folders: list[tuple[str, State]] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    inside = self.pattern.into(state, entry.name)
                    is_wanted = self.pattern.takes(state, entry.name) and not any(self.pattern.takes(other, entry.name) for other in before)
                    if inside == NOTHING and not is_wanted:
                        continue
                    try:
                        is_folder, is_link = entry.is_dir(), entry.is_symlink()
                    except OSError as error:
                        yield _unseen(entry.path, error)
                        continue
                    if is_folder and inside != NOTHING:
                        if is_link:
                            heapq.heappush(self.links, (entry.path, len(self.links), inside))
                        else:
                            folders.append((entry.path, inside))
                    elif not is_folder and is_wanted and not (is_link and self.left_out.has_path(os.path.realpath(entry.path))):
                        files.append(entry.path)
                    if len(files) == PAGE:
                        yield from look_at(files)
                        files = []
        except OSError as error:
            yield _unseen(folder, error, "folder cannot be listed: ")
        yield from look_at(files)
        self.folders.extend(sorted(folders, key=lambda one: one[0], reverse=True))


def list_glob(path: str, left_out: LeftOut) -> Iterator[Listed]:
    """Every file that a glob (an absolute path) matches, and all below the folders that it matches. Raises OSError as `list_folder`."""
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if GLOB_CHARACTERS & set(part))
    return list_folder("/".join(parts[:first]) or "/", left_out, Pattern(parts[first:]))


def look_at(paths: Sequence[str]) -> Iterator[Listed]:
    """What the file system says of each file."""
    regular: list[tuple[str, int, int]] = []
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            yield _unseen(path, error)
            continue
        if stat.S_ISREG(found.st_mode):
            regular.append((local_uri(path), found.st_size, found.st_mtime_ns))
        else:
            yield Listed(local_uri(path), 0, "", problem=A_FOLDER if stat.S_ISDIR(found.st_mode) else "neither a file nor a folder")
    for (uri, size, _), modified in zip(regular, times([at for _, _, at in regular]), strict=True):
        yield Listed(uri, size, modified)


def times(since_1970_ns: Sequence[int]) -> list[str]:
    """ISO 8601 in UTC, to the nanosecond; all at once, since this is most of the work of a listing.

    >>> times([0, 10_413_792_000 * 10**9 + 5])
    ['1970-01-01T00:00:00.000000000Z', '2300-01-01T00:00:00.000000005Z']
    """
    try:
        return list(np.datetime_as_string(np.array(since_1970_ns, "datetime64[ns]"), timezone="UTC").tolist())
    except OverflowError:  # 64 bits of nanoseconds end in 2262, file systems later
        pairs = [divmod(at, 10**9) for at in since_1970_ns]
        whole = np.datetime_as_string(np.array([seconds for seconds, _ in pairs], "datetime64[s]"), timezone="UTC").tolist()
        return [f"{text.removesuffix('Z')}.{rest:09d}Z" for text, (_, rest) in zip(whole, pairs, strict=True)]


def local_uri(path: str) -> str:
    """The path itself, or a file:// URI for one that is not valid Unicode, which no table could hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def _unseen(path: str, error: OSError, what: str = "") -> Listed:
    return Listed(local_uri(path), 0, "", problem=f"{what}{error.strerror or error}", hides=error.errno not in GONE)
