"""Names of saved specs as this machine heard of them last: what a form offers while it is parsed, without a catalog or a library."""

from __future__ import annotations

import json
import os
from pathlib import Path

from discovery.config import Config


def known_names(config: Config) -> list[str]:
    """The names, ascending; none before the first was saved, or when the file was lost."""
    try:
        names = json.loads(_file(config).read_text())
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def remember(names: list[str], config: Config) -> None:
    """Leave the names for `known_names`. What cannot be written is left: it is read as a convenience alone."""
    file = _file(config)
    if known_names(config) == sorted(names):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(json.dumps(sorted(names)))
        draft.replace(file)
    except OSError:
        return


def _file(config: Config) -> Path:
    return config.local_folder / "saved-specs.json"
