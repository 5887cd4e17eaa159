"""A dataset version as a torch Dataset; the only module that needs torch when it is imported, so it is imported where one is asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch.utils.data
from PIL import Image

from discovery.adapters.decode import Undecodable, decode
from discovery.errors import CorruptArtifact


class Labelled(NamedTuple):
    """An item: the picture, as `transform` gives it (without one, an upright RGB picture of PIL), and the number of its class, -1 without a label."""

    image: Any
    label: int


class VersionDataset(torch.utils.data.Dataset[Labelled]):
    """The members of a version, or of one of its splits, ascending by id; pictures are read when they are asked for, and decoded.

    It may be used by several threads, and travels to the workers of a DataLoader, forked or spawned. A batch (`__getitems__`, which DataLoader
    calls) is read by `threads` threads at once; `transform` runs in the caller's, picture by picture in order.
    """

    def __init__(
        self, read: Callable[[str, str], bytes], ids: Sequence[str], uris: Sequence[str], labels: Sequence[int], classes: Sequence[str],
        transform: Callable[[Image.Image], Any] | None, threads: int, version: str = "", digest: str = "",
    ) -> None:  # fmt: skip
        """version: name@number, which with its digest says afterwards what was trained on. read: bytes of an asset by id and source URI, checked; a module-level function or what pickles. labels: of each, a number of `classes` or -1."""
        self.version, self.digest = version, digest
        self.ids = tuple(ids)
        self.labels = tuple(labels)
        self.classes = tuple(classes)
        self.class_to_idx = {name: number for number, name in enumerate(classes)}
        self.transform = transform
        self._read, self._uris, self._threads = read, tuple(uris), threads
        self._own = threading.local()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Labelled:
        if not -len(self) <= place < len(self):
            raise IndexError(f"item {place} of {len(self)}")
        return self._item(place, self._picture(place))

    def __getitems__(self, places: Sequence[int]) -> list[Labelled]:
        """Several items, in the order asked for."""
        pictures = list(self._pool().map(self._picture, places))
        return [self._item(place, picture) for place, picture in zip(places, pictures, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = threading.local()

    def _item(self, place: int, picture: Image.Image) -> Labelled:
        return Labelled(picture if self.transform is None else self.transform(picture), self.labels[place])

    def _picture(self, place: int) -> Image.Image:
        asset_id = self.ids[place]
        try:
            return decode(self._read(asset_id, self._uris[place]), max_pixels=2**62).image
        except Undecodable as error:  # its bytes are as they were: this machine's decoders are not those that took it in
            raise CorruptArtifact(f"{asset_id} does not decode on this machine: {error.reason}, {error.detail}. Compare the versions of Pillow and pillow-heif.") from error

    def _pool(self) -> ThreadPoolExecutor:
        """This thread's own; one that was made before a fork has no threads in the child."""
        if getattr(self._own, "process", 0) != os.getpid():
            self._own.process, self._own.pool = os.getpid(), ThreadPoolExecutor(self._threads, "discovery-load")
        pool: ThreadPoolExecutor = self._own.pool
        return pool
