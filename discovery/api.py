"""The library in Python: `discovery.open(root)`, then the commands' names and options as methods.

    import discovery

    with discovery.open("photos") as library:
        for result in library.search(asset="3f2a…", where="brightness < 0.3", k=20).results:
            print(result.distance, result.source_uri)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.files import is_local, local_path
from discovery.config import load_config
from discovery.core.draws import id_array
from discovery.errors import InvalidInput, UnknownRecord
from discovery.stages.history import current_snapshot
from discovery.stages.maintain import audit_recall
from discovery.stages.open_index import open_index
from discovery.stages.query import Box
from discovery.stages.region_search import search_by_region
from discovery.stages.search import Query, SearchAnswer, SecondLook, search, search_many
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from discovery.adapters.torch_dataset import VersionDataset

Many = str | Path | Sequence[str | Path]


class Library:
    """A root that is open. Close it, or use it in a `with`. It may be used by several threads."""

    def __init__(self, root: str | Path = "", config: str | Path = "") -> None:
        """root: a folder or an fsspec URI; empty takes that of the settings. config: settings file; empty takes discovery.toml and the environment."""
        settings = load_config(Path(config) if config else None)
        self._stack = ExitStack()
        self.workspace: Workspace = self._stack.enter_context(open_workspace(settings.replace(root=str(root)) if root else settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()

    def search(
        self, *, asset: Many = (), image: Many = (), like: Many = (), unlike: Many = (), text: Many = (), box: Box | str | None = None,
        where: str = "", k: int = 10, region: bool = False, whole: bool = False, expand: int = 0, augment: int = 0, rerank: int = 0,
        diverse: bool = False,
    ) -> SearchAnswer:  # fmt: skip
        """The k nearest assets, as `discovery search` with the options of these names; one of a kind may be given without a list.

        asset, like, unlike: ids, or their first digits. image: files. box: 'x,y,w,h' of the only example. region: the examples are parts, as with a
        box unless `whole`; see stages.region_search. expand, augment, rerank, diverse: see
        stages.search.SecondLook. Results carry cosine distances, nearest first. Raises what the stage raises; InvalidInput for a search by parts with
        anything but asset, like, image, box, where and k.
        """
        query = self.query(asset=asset, image=image, like=like, unlike=unlike, text=text, box=box)
        if region or (query.box is not None and not whole):
            if whole or query.unlike or query.texts or expand or augment or rerank or diverse:
                raise InvalidInput("A search by parts of pictures goes with asset, like, image, box, where and k alone; a box goes with the others when whole.")
            return search_by_region(self.workspace, like=query.like, images=query.images, box=query.box, where=where, k=k)
        return search(
            self.workspace, like=query.like, unlike=query.unlike, images=query.images, texts=query.texts, box=query.box, where=where, k=k,
            second_look=SecondLook(expand, augment, rerank, diverse),
        )  # fmt: skip

    def search_many(
        self, queries: Sequence[Query | str], *, where: str = "", k: int = 10, expand: int = 0, augment: int = 0, rerank: int = 0,
        diverse: bool = False,
    ) -> list[SearchAnswer]:  # fmt: skip
        """One answer a query (of `query`, or an asset id), put to the index at once, which is many times faster than one by one."""
        asked = [Query(like=(one,)) if isinstance(one, str) else one for one in queries]
        return search_many(self.workspace, asked, where=where, k=k, second_look=SecondLook(expand, augment, rerank, diverse))

    @staticmethod
    def query(
        *, asset: Many = (), image: Many = (), like: Many = (), unlike: Many = (), text: Many = (), box: Box | str | None = None
    ) -> Query:
        """One of several queries for `search_many`."""
        found = Box.parse(box) if isinstance(box, str) else box
        return Query(
            like=(*_texts(asset), *_texts(like)), unlike=_texts(unlike), images=tuple(Path(one) for one in _texts(image)), texts=_texts(text), box=found
        )

    def neighbours(self, vectors: NDArray[np.float32], k: int = 10) -> tuple[list[list[str]], NDArray[np.float32]]:
        """Of (n, d) float32 unit vectors, by the encoder of the index, the k nearest assets' ids and (n, k) cosine distances, inf for none."""
        index = open_index(self.index, self.workspace)
        rows, distances = index.search(np.ascontiguousarray(vectors), k)
        return [[name.decode() for name in row if name] for row in index.ids(rows)], distances

    def vectors(self, asset_ids: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) float32 unit vectors of indexed assets, by their whole ids. Raises UnknownRecord for one that is in no segment."""
        index = open_index(self.index, self.workspace)
        rows = index.find(id_array(list(asset_ids)))
        if (rows < 0).any():
            raise UnknownRecord(f"No segment holds {asset_ids[int(np.argmin(rows))]}. Pictures with the same pixels are indexed once.")
        return index.vectors(rows)

    @property
    def index(self) -> IndexSnapshot:
        """The current snapshot: how much it holds and which recall is certified, for rare pictures too."""
        return current_snapshot(self.workspace)

    def audit(self) -> IndexSnapshot:
        """Certify the recall of the index anew, as `discovery index --audit`; see `is_certified`, `recall_lower_bound` and `strata`."""
        return audit_recall(self.workspace)[0]


def load(
    version: str, *, split: str | None = None, root: str | Path = "", config: str | Path = "", label: str = "", transform: Callable[[Any], Any] | None = None,
    cache: str | Path | None = None, cache_bytes: int = 10 * 2**30,
) -> VersionDataset:  # fmt: skip
    """A dataset version as a torch Dataset (map-style) of (picture, number of its class), read from the store as it is asked for.

    split: one of the version's, or all of it. root, config: as of `Library`. label: the column of the labels; empty takes the usual one. transform: called with
    an upright RGB picture of PIL. cache: folder of this machine where bytes of a remote store or source are kept, at most `cache_bytes` of them; None takes
    one beside the root's other caches, "" keeps nothing; of a local store nothing is copied. The bytes are checked against their hash at every
    reading. The dataset's `version` (name@number) and `digest` say what was loaded; a yanked version is warned of. Relative folders are those of this call,
    wherever the process goes, and none is made. Raises UnknownRecord and ConfigError for what does not exist.
    """
    from discovery.adapters.torch_dataset import VersionDataset
    from discovery.stages.training_set import CachedReader, check_is_there, training_set

    settings = load_config(Path(config) if config else None)
    place = str(root) or settings.root
    settings = settings.replace(root=str(local_path(place).absolute()) if is_local(place) else place)
    check_is_there(settings.root)
    with open_workspace(settings, map_shards=map) as ws:
        found = training_set(version, split, label, ws)
    if found.yanked:
        warnings.warn(f"{found.version} should not be trained on: {found.yanked}", stacklevel=2)
    folder = settings.local_folder / "cache" / "assets" if cache is None else cache
    kept_in = str(Path(folder).expanduser().absolute()) if str(folder) else ""
    read = CachedReader(settings.root, settings.s3, kept_in, cache_bytes)
    return VersionDataset(
        read, found.ids, found.uris, found.labels, found.classes, transform, settings.dask.read_threads, version=found.version, digest=found.digest
    )


def _texts(values: Many) -> tuple[str, ...]:
    return (str(values),) if isinstance(values, str | Path) else tuple(str(value) for value in values)
