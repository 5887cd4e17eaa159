"""Visual data discovery: from folders and buckets of pictures to versioned, explained dataset versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discovery.api import Library

__version__ = "0.1.0"


def open(root: str | Path = "", config: str | Path = "") -> Library:
    """A root as a library to search in (discovery.api.Library). root: a folder or an fsspec URI; empty: that of discovery.toml and the environment."""
    from discovery.api import Library

    return Library(root, config)
