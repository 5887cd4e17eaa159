"""What an export holds and where: its examples in order, the names of folders and shards, and where shards are cut. Nothing is read or written here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from discovery.addressing import canonical_json, sha256_hex
from discovery.core.boxes import LabelledBox

UNLABELLED = "_unlabelled"  # folder of pictures without a label; a label of this name is written otherwise
NAME_BYTES = 200  # of a folder's name; file systems take 255
LAYOUT = 2  # raised when the same plan is laid out otherwise, so that an export begun before is not gone on with
EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp", "HEIC": ".heic", "AVIF": ".avif"}

Form = Literal["original", "jpeg", "png"]


@dataclass(frozen=True, slots=True)
class Example:
    """A member as it is exported. width_px and height_px are upright; is_frame: of a video, so that its bytes do not have the hash that its id is."""

    asset_id: str
    split: str
    label: str | None
    format: str
    size_bytes: int
    width_px: int
    height_px: int
    source_uri: str
    reason: str
    is_frame: bool = False
    boxes: tuple[LabelledBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A picture that was exported: the file it is or lies in, relative to the export, and hash and size of its own bytes."""

    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """label: column of the labels, empty for the usual one. form: what pictures are written as. A shard ends before it exceeds either limit.

    license_url: of the pictures, told in the metadata; empty says nothing of it.
    """

    label: str = ""
    form: Form = "original"
    shard_bytes: int = 256 * 2**20
    shard_examples: int = 10_000
    license_url: str = ""


@dataclass(frozen=True)
class ExportPlan:
    """Everything that decides what an export holds, to the byte. examples: split by split in the order of `splits`, ascending by id within one.

    notes decide nothing: they are what readers must know of the version.
    """

    name: str
    number: int
    digest: str
    created_at: str
    spec: str
    format: str
    options: ExportOptions
    label_column: str
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    layout: int = field(default=LAYOUT)
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version as people name it."""
        return f"{self.name}@{self.number}"

    @cached_property
    def id(self) -> str:
        """Of everything in it; two exports may share a place only when they have one id."""
        told = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name not in ("examples", "notes")}
        digest = hashlib.sha256(canonical_json(told | {"options": dataclasses.asdict(self.options)}).encode())
        for example in self.examples:  # one by one: a million of them as one text would take gigabytes
            digest.update(json.dumps(dataclasses.astuple(example)).encode())
        return digest.hexdigest()

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each class."""
        return {name: number for number, name in enumerate(self.classes)}

    def class_of(self, example: Example) -> int:
        """Number of an example's class; -1 without a label."""
        return -1 if example.label is None else self.index[example.label]

    def of_split(self, split: str) -> range:
        """Places of a split's examples."""
        places = [place for place, example in enumerate(self.examples) if example.split == split]
        return range(places[0], places[-1] + 1) if places else range(0)


def order_examples(examples: Iterable[Example], splits: Sequence[str]) -> tuple[Example, ...]:
    """In the order that a plan has them; splits without examples do no harm."""
    place = {split: number for number, split in enumerate(splits)}
    return tuple(sorted(examples, key=lambda example: (place[example.split], example.asset_id)))


def classes_of(examples: Iterable[Example]) -> tuple[str, ...]:
    """Every label there is, over all splits, so that a class has one number in each; sorted, as numbers when all are whole numbers."""
    labels = sorted({example.label for example in examples if example.label is not None})
    return tuple(sorted(labels, key=int) if all(label.isdecimal() for label in labels) else labels)


def extension(example: Example, form: Form) -> str:
    """Of an example's file, with its dot.

    >>> one = Example("ab", "train", None, "CR2", 1, 1, 1, "", "")
    >>> extension(one, "original"), extension(one, "jpeg")
    ('.cr2', '.jpg')
    """
    if form != "original":
        return {"jpeg": ".jpg", "png": ".png"}[form]
    return EXTENSIONS.get(example.format) or f".{re.sub('[^a-z0-9]', '', example.format.lower()) or 'bin'}"


def folder_name(label: str | None) -> str:
    """A label as the name of a folder: readable, and another one for every other label. What a path cannot hold is percent-encoded.

    >>> folder_name("chien/chat"), folder_name("Ärzte 🩺"), folder_name(None), folder_name("_unlabelled"), folder_name("..")
    ('chien%2Fchat', 'Ärzte 🩺', '_unlabelled', '%5Funlabelled', '%2E%2E')
    """
    if label is None:
        return UNLABELLED
    if label == UNLABELLED:
        return f"%5F{label[1:]}"
    if not label.strip("."):
        return label.replace(".", "%2E") or "%"
    name = "".join(_kept(letter) for letter in label)
    if name[0] in ". ":
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if name[-1] in ". ":
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    encoded = name.encode()
    if len(encoded) > NAME_BYTES:
        return f"{encoded[: NAME_BYTES - 17].decode(errors='ignore')}-{sha256_hex(label.encode(errors='surrogatepass'))[:16]}"
    return name


def _kept(letter: str) -> str:
    if letter in '%/\\:*?"<>|' or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
        return "".join(f"%{byte:02X}" for byte in letter.encode(errors="surrogatepass"))
    return letter


def split_word(split: str) -> str:
    """A split's name of letters of any script, digits and underscores, as the `datasets` library wants it, for which `all` is every split.

    >>> split_word("train-2026"), split_word("été"), split_word("All")
    ('train_2026', 'été', 'All_')
    """
    word = re.sub(r"\W", "_", split) or "_"
    return f"{word}_" if word.lower() == "all" else word


def same_names(names: Mapping[str, str]) -> list[list[str]]:
    """Things whose names are one on a disk that ignores case and how accents are written, as those of macOS and Windows do; each list in the order given.

    >>> same_names({"a": "Cat", "b": "dog", "c": "cat"})
    [['a', 'c']]
    """
    groups: dict[str, list[str]] = {}
    for thing, name in names.items():
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(thing)
    return [group for group in groups.values() if len(group) > 1]


def cut(sizes: Sequence[int], most_bytes: int, most_rows: int) -> list[range]:
    """Consecutive shards, each as long as both limits let it be, with one row at least.

    >>> cut([5, 5, 5, 20, 1], most_bytes=10, most_rows=100)
    [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    """
    shards: list[range] = []
    start = held = 0
    for row, size in enumerate(sizes):
        if row > start and (held + size > most_bytes or row - start == most_rows):
            shards.append(range(start, row))
            start, held = row, 0
        held += size
    return [*shards, range(start, len(sizes))] if sizes else []


def expected_bytes(example: Example, form: Form) -> int:
    """How large an example's file will be, about: its recorded size, or half a byte a pixel as JPEG, two as PNG."""
    pixels = example.width_px * example.height_px
    return {"original": example.size_bytes or pixels // 2, "jpeg": pixels // 2, "png": 2 * pixels}[form]
