"""Embedded databases that appear whole: SQLite does not undo a schema that was being made when its process was killed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from discovery.adapters.files import translated
from discovery.adapters.naming import take_name


@contextmanager
def made_whole(path: Path) -> Iterator[Path | None]:
    """Another path beside `path` to make the database at; it comes to its name when the block ends without an error.

    None when it is there already. Of two processes that make it at once the first wins, and the other's is thrown away.
    """
    if path.exists():
        yield None
        return
    with translated(f"Making {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield draft
        with translated(f"Making {path}"), suppress(FileExistsError):
            take_name(draft, path)
    finally:
        for leftover in path.parent.glob(f"{draft.name}*"):  # the draft, its journal
            leftover.unlink(missing_ok=True)
