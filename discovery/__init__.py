"""Visual data discovery: from folders and buckets of pictures to versioned, explained dataset versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from discovery.adapters.torch_dataset import VersionDataset
    from discovery.api import Library

__version__ = "0.1.0"


def open(root: str | Path = "", config: str | Path = "") -> Library:
    """A root as a library to search in (discovery.api.Library). root: a folder or an fsspec URI; empty: that of discovery.toml and the environment."""
    from discovery.api import Library

    return Library(root, config)


def load(
    version: str, *, split: str | None = None, root: str | Path = "", config: str | Path = "", label: str = "", transform: Callable[[Any], Any] | None = None,
    cache: str | Path | None = None, cache_bytes: int = 10 * 2**30,
) -> VersionDataset:  # fmt: skip
    """A dataset version, such as `photos@3`, as a torch Dataset that reads from the store as it is asked for (discovery.api.load)."""
    from discovery.api import load

    return load(version, split=split, root=root, config=config, label=label, transform=transform, cache=cache, cache_bytes=cache_bytes)
