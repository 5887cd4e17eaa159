"""What a format of exports is: where pictures go, one file each or packed into shards, and which files describe them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery.core.export_plan import Example, ExportPlan, Made, folder_name

Packed = Iterable[tuple[Example, bytes]]
Descriptions = Iterator[tuple[str, bytes | Iterator[bytes]]]


@dataclass(frozen=True, slots=True)
class Format:
    """place: path of each picture, for formats of one file a picture. shard and pack: for formats of shards; shard gives the path of a split's number-th of
    so many, pack writes one to a local file, from examples and bytes that come one by one, and unpack gives asset id and bytes of each picture back. Neither:
    pictures stay where they are.

    describe: the files that are written after all pictures, path and bytes (at once or in parts), from what became of each example; names: their paths,
    which cost nothing. A writer's bytes depend on its arguments alone: no clock, no path of this machine, no order but the plan's.

    split_name: what becomes of a split's name; None where it is never a name. has_boxes: boxes are written.
    """

    name: str
    about: str
    describe: Callable[[ExportPlan, Sequence[Made]], Descriptions] = lambda plan, made: iter(())
    names: Callable[[ExportPlan], Sequence[str]] = lambda plan: ()
    place: Callable[[Example, ExportPlan], str] | None = None
    shard: Callable[[str, int, int], str] | None = None
    pack: Callable[[Path, Packed, ExportPlan], None] | None = None
    unpack: Callable[[Path], Iterator[tuple[str, bytes]]] | None = None
    split_name: Callable[[str], str] | None = folder_name
    has_boxes: bool = False
    classes_are_folders: bool = False
    unread: Mapping[str, str] | None = None  # formats of pictures that its usual reader leaves out or cannot decode, and what it does then


def split_folder(example: Example) -> str:
    """The folder of an example's split."""
    return folder_name(example.split)
