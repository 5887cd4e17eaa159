"""One plan, seeded: source pictures in, two batches with their planted files and the truth about them out."""

import csv
import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from demo import plants
from demo.screen import screened
from demo.sources import NOVEL_LABELS, WALLPAPER, Picture, slug
from demo.truth import FILE_NAME, Truth

RECIPE = 1
"""Raise it with any change that alters the corpus: an older corpus is then built again."""
MADE_HERE = ("made by demo.corpus", "CC0-1.0")


@dataclass(frozen=True)
class Plan:
    """How many pictures are held out for batch-2; how many of each kind are planted: pairs are (batch-1, batch-2)."""

    held_out: int = 100
    novel: int = 40
    wallpapers: int = 20
    exact: tuple[int, int] = (20, 5)
    near: tuple[int, int] = (30, 5)
    unreadable: tuple[tuple[str, ...], tuple[str, ...]] = (tuple(plants.UNREADABLE), ("truncated-jpeg", "text"))
    blank: int = 3
    reencoded: tuple[str, ...] = ("gif", "tiff", "bmp") * 4
    oriented: tuple[int, ...] = (3, 6, 8)


FULL = Plan()
REDUCED = Plan(held_out=60, novel=30)


class TooFewPictures(RuntimeError):
    """The sources have fewer pictures than the plan needs; the message has both numbers."""


@dataclass
class _Corpus:
    """The corpus while it grows: its folder, each file's (source, licence), and what is true of it."""

    folder: Path
    licences: dict[str, tuple[str, str]] = field(default_factory=dict)
    exact: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str, str]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    reencoded: list[tuple[str, str]] = field(default_factory=list)
    oriented: list[tuple[str, int]] = field(default_factory=list)

    def add(self, folder: str, stem: str, suffix: str, content: bytes | Path, origin: tuple[str, str]) -> str:
        """Writes one file under a name that is free, and returns its path relative to the corpus."""
        path = f"{folder}/{stem}{suffix}"
        for number in range(2, 1_000_000):
            if path not in self.licences:
                break
            path = f"{folder}/{stem}-{number}{suffix}"
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content)
        self.licences[path] = origin
        return path


def plant(pictures: Iterable[Picture], folder: Path, seed: int, plan: Plan, reduced: bool) -> Truth:
    """Writes batch-1, batch-2, LICENCES.csv and, last, truth.json into an empty folder.

    The same pictures, seed and plan give the same files. Raises TooFewPictures and plants.PlantFailed.
    """
    rng = random.Random(seed)
    everyday, novel = _chosen(list(pictures), plan, rng)
    if len(novel) < plan.novel or len(everyday) < 2 * plan.held_out:
        raise TooFewPictures(
            f"the plan needs {plan.novel} novel and {2 * plan.held_out} everyday pictures, the sources have "
            f"{len(novel)} and {len(everyday)}; empty the cache and fetch the packages again."
        )
    corpus = _Corpus(folder)
    held_out, first = everyday[: plan.held_out], everyday[plan.held_out :]
    originals = _place_first_batch(corpus, first, plan, rng)
    for picture in sorted(held_out + novel, key=lambda picture: picture.path):
        _place(corpus, "batch-2", picture)
    for batch in (1, 2):
        _plant_copies(corpus, batch, originals, plan, rng)
        _plant_unreadable(corpus, batch, originals, plan, rng)
    for number in range(plan.blank):
        content, suffix = plants.blank(number)
        corpus.blank.append(corpus.add(f"batch-1/{_a_label(corpus, rng)}", _camera_name(rng), suffix, content, MADE_HERE))
    truth = _truth(corpus, seed, reduced, Counter(picture.source for picture in everyday + novel))
    with (folder / "LICENCES.csv").open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("path", "source", "licence"))
        rows.writerows((path, *corpus.licences[path]) for path in sorted(corpus.licences))
    (folder / FILE_NAME).write_text(truth.to_json(), "utf-8")
    return truth


def _chosen(pictures: list[Picture], plan: Plan, rng: random.Random) -> tuple[list[Picture], list[Picture]]:
    """(everyday, novel), each shuffled and screened together; only as many wallpapers and novel pictures as the plan
    has.
    """
    rng.shuffle(pictures)
    novel = [picture for picture in pictures if picture.label in NOVEL_LABELS]
    # Twice the novel pictures needed leave room for unfit ones, and spare the decoding of the others.
    unscreened = [picture for picture in pictures if picture.label not in NOVEL_LABELS] + novel[: 2 * plan.novel]
    fit = list(screened(unscreened))
    wallpapers = [picture for picture in fit if picture.label == WALLPAPER]
    left_out = set(wallpapers[plan.wallpapers :])
    everyday = [picture for picture in fit if picture.label not in NOVEL_LABELS and picture not in left_out]
    return everyday, [picture for picture in fit if picture.label in NOVEL_LABELS][: plan.novel]


def _place_first_batch(corpus: _Corpus, pictures: list[Picture], plan: Plan, rng: random.Random) -> list[tuple[str, Picture]]:
    """Places all, a few in another format or turned; returns the untouched ones, (path, picture), shuffled."""
    photographs = [picture for picture in pictures if _format(picture.path) == "JPEG"]
    turned = dict(zip(photographs, plan.oriented, strict=False))
    others = [picture for picture in pictures if picture not in turned]
    recoded = dict(zip(others, plan.reencoded, strict=False))
    originals = []
    for picture in sorted(pictures, key=lambda picture: picture.path):
        if picture in turned:
            content = plants.oriented(picture.path, turned[picture])
            corpus.oriented.append((_place(corpus, "batch-1", picture, content, ".jpg"), turned[picture]))
        elif picture in recoded:
            content = plants.reencoded(picture.path, recoded[picture])
            path = _place(corpus, "batch-1", picture, content, f".{recoded[picture]}")
            corpus.reencoded.append((path, recoded[picture]))
        else:
            originals.append((_place(corpus, "batch-1", picture), picture))
    rng.shuffle(originals)
    return originals


def _place(corpus: _Corpus, batch: str, picture: Picture, content: bytes | None = None, suffix: str = "") -> str:
    stem, suffix = slug(picture.path.stem), suffix or picture.path.suffix.lower()
    origin = (picture.source, picture.licence)
    return corpus.add(f"{batch}/{picture.label}", stem, suffix, picture.path if content is None else content, origin)


def _plant_copies(corpus: _Corpus, batch: int, originals: list[tuple[str, Picture]], plan: Plan, rng: random.Random) -> None:
    """Copies of pictures of batch-1, each original used once; they are taken off the end of `originals`."""
    for number in range(plan.exact[batch - 1]):
        path, picture = originals.pop()
        # Half in a folder of their own, half beside the original (in batch-2: in a folder of the same name).
        label = "downloads" if number % 2 else picture.label
        origin = (picture.source, picture.licence)
        copy = corpus.add(f"batch-{batch}/{label}", _camera_name(rng), Path(path).suffix, corpus.folder / path, origin)
        corpus.exact.append((path, copy))
    edits = list(plants.EDITS)
    for number in range(plan.near[batch - 1]):
        edit = edits[number % len(edits)]
        path, picture = _taken(originals, min_side_px=plants.MIN_SIDE_TO_RESIZE_PX if edit.startswith("resize") else 0)
        content, suffix = plants.near_copy(corpus.folder / path, edit)
        origin = (picture.source, picture.licence)
        copy = corpus.add(f"batch-{batch}/{picture.label}", _camera_name(rng), suffix, content, origin)
        corpus.near.append((path, copy, edit))


def _plant_unreadable(corpus: _Corpus, batch: int, originals: list[tuple[str, Picture]], plan: Plan, rng: random.Random) -> None:
    """Damaged files are made of pictures that stay in batch-1 whole."""
    for kind in plan.unreadable[batch - 1]:
        donor, _ = originals.pop()
        content, suffix = plants.unreadable(kind, corpus.folder / donor, rng)
        is_damaged = kind in ("truncated-jpeg", "truncated-png", "corrupt-png")
        origin = corpus.licences[donor] if is_damaged else MADE_HERE
        path = corpus.add(f"batch-{batch}/{_a_label(corpus, rng)}", _camera_name(rng), suffix, content, origin)
        corpus.unreadable.append({"path": path, "kind": kind})


def _taken(originals: list[tuple[str, Picture]], min_side_px: int) -> tuple[str, Picture]:
    """Takes the last original that is large enough off the list."""
    for at in range(len(originals) - 1, -1, -1):
        with Image.open(originals[at][1].path) as image:
            is_large = min(image.size) >= min_side_px
        if is_large:
            return originals.pop(at)
    raise TooFewPictures(
        f"none of the {len(originals)} pictures left has sides of {min_side_px} px for the next copy; use more sources."
    )


def _format(path: Path) -> str | None:
    with Image.open(path) as image:
        return image.format


def _camera_name(rng: random.Random) -> str:
    return f"img-{rng.randrange(10_000):04d}"


def _a_label(corpus: _Corpus, rng: random.Random) -> str:
    return rng.choice(sorted({path.split("/")[1] for path in corpus.licences if path.startswith("batch-1/")} - {"downloads"}))


def _truth(corpus: _Corpus, seed: int, reduced: bool, sources: Counter[str]) -> Truth:
    novel = sorted(path for path in corpus.licences if path.split("/")[1] in NOVEL_LABELS)
    kinds = {
        "files": list(corpus.licences),
        "exact_copies": [copy for _, copy in corpus.exact],
        "near_copies": [copy for _, copy, _ in corpus.near],
        "unreadable": [entry["path"] for entry in corpus.unreadable],
        "blank": corpus.blank,
        "novel_family": novel,
    }
    counts = {
        batch: {kind: sum(path.startswith(f"{batch}/") for path in paths) for kind, paths in kinds.items()}
        for batch in ("batch-1", "batch-2")
    }
    return Truth(
        recipe=RECIPE,
        seed=seed,
        reduced=reduced,
        counts=counts,
        exact_copies=tuple(corpus.exact),
        near_copies=tuple(corpus.near),
        unreadable=tuple(corpus.unreadable),
        blank=tuple(corpus.blank),
        reencoded=tuple(corpus.reencoded),
        oriented=tuple(corpus.oriented),
        novel_family=tuple(novel),
        sources=dict(sorted(sources.items())),
    )
