"""The wrapper of hnswlib: a test for every line of the pitfall table (ALGORITHMS section 1), and what a graph answers."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import hnswlib
import numpy as np
import pytest

from discovery.adapters.graph_file import HEADER, check_graph_file, file_size, reorder_graph_file
from discovery.adapters.hnsw import NOTHING, HnswSegment
from discovery.adapters.insertion import insertion_order
from discovery.config import IndexConfig
from discovery.core.knn import exact_knn, normalise
from discovery.errors import CorruptArtifact, InvalidInput, StorageFull

CONFIG = IndexConfig()
SMALL = IndexConfig(m=4, ef_construction=32)
N, DIM = 60, 16


def unit(n: int = N, d: int = DIM, seed: int = 1) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def saved(path: Path, n: int = N, config: IndexConfig = CONFIG) -> Path:
    HnswSegment.build(unit(n), config).save(path)
    return path


def test_a_segment_finds_what_exact_search_finds() -> None:
    vectors, queries = unit(), unit(5, seed=2)
    labels, distances = HnswSegment.build(vectors, CONFIG).query(queries, 10, 200)
    rows, exact = exact_knn(queries, vectors, 10)
    assert (labels == rows).all() and np.allclose(distances, exact, atol=1e-6)


# adds rows with NaN · queries with the wrong width


@pytest.mark.parametrize("bad", [np.nan, np.inf, 5.0])
def test_nan_and_other_norms_are_refused_in_builds_and_queries(bad: float) -> None:
    vectors = unit(4)
    vectors[2, 3] = bad
    with pytest.raises(InvalidInput, match="finite unit vectors"):
        HnswSegment.build(vectors, CONFIG)
    with pytest.raises(InvalidInput, match="finite unit vectors"):
        HnswSegment.build(unit(4), CONFIG).query(vectors, 1, 16)


def test_another_width_type_or_nothing_is_refused() -> None:
    segment = HnswSegment.build(unit(4), CONFIG)
    for threads in (1, 2):
        with pytest.raises(InvalidInput, match="width 16, found 8"):
            segment.query(unit(1, 8), 1, 16, threads)
    for wrong in (unit(4).astype(np.float64), unit(4)[0], np.zeros((0, 16), np.float32)):
        with pytest.raises(InvalidInput, match="float32"):
            HnswSegment.build(wrong, CONFIG)
    with pytest.raises(InvalidInput, match="k >= 1"):
        segment.query(unit(1), 0, 16)


# calls a method before init_index


def test_there_is_no_graph_that_was_not_built_or_loaded() -> None:
    with pytest.raises(TypeError):
        HnswSegment()  # type: ignore[call-arg]


# saves to a missing directory or a full disk


def test_a_file_that_was_not_written_whole_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="hnswlib wrote 0 bytes of at least"):
        HnswSegment.build(unit(), CONFIG).save(tmp_path / "missing" / "graph.bin")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "full.bin").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="no space left"):
        HnswSegment.build(unit(), CONFIG).save(tmp_path / "full.bin")


# loads a file: no magic, dim, space, ef or checksum in it; a flipped neighbour id crashes; a crafted file overflows the heap


def test_a_segment_answers_alike_after_a_round_trip_since_ef_is_set_for_each_query(tmp_path: Path) -> None:
    segment = HnswSegment.build(unit(500), SMALL)
    segment.save(tmp_path / "graph.bin")
    loaded = HnswSegment.load(tmp_path / "graph.bin", 500, DIM, SMALL.m)
    for ef in (16, 400):
        assert (loaded.query(unit(50, seed=3), 10, ef)[0] == segment.query(unit(50, seed=3), 10, ef)[0]).all()
    assert (loaded.query(unit(50, seed=3), 10, 16)[0] != loaded.query(unit(50, seed=3), 10, 400)[0]).any()


@pytest.mark.parametrize("n", [1, 2, 33, 3000])
@pytest.mark.parametrize("config", [CONFIG, SMALL], ids=["m32", "m4"])
def test_what_hnswlib_writes_passes_and_has_the_size_that_was_foreseen(tmp_path: Path, n: int, config: IndexConfig) -> None:
    path = saved(tmp_path / "graph.bin", n, config)
    check_graph_file(path, n, DIM, config.m)
    low, high = file_size(n, DIM, config.m)
    assert low <= path.stat().st_size <= high


@pytest.mark.parametrize(("n", "dim", "m"), [(61, 16, 32), (60, 17, 32), (60, 16, 16), (59, 16, 32)])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, n: int, dim: int, m: int) -> None:
    with pytest.raises(CorruptArtifact, match="is no graph of"):
        HnswSegment.load(saved(tmp_path / "graph.bin"), n, dim, m)


@pytest.mark.parametrize("cut", [0, 1, 100, 1000])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path / "graph.bin")
    data = path.read_bytes()
    path.write_bytes(data[: cut if cut < 100 else -cut])
    with pytest.raises(CorruptArtifact, match="is no graph of"):
        HnswSegment.load(path, N, DIM, CONFIG.m)


@pytest.mark.parametrize("n", [1, 2, 33, 3000])
@pytest.mark.parametrize("config", [CONFIG, SMALL], ids=["m32", "m4"])
def test_a_graph_in_another_order_is_the_same_graph_and_its_links_are_near(tmp_path: Path, n: int, config: IndexConfig) -> None:
    path, ordered = saved(tmp_path / "graph.bin", n, config), tmp_path / "ordered.bin"
    reorder_graph_file(path, ordered, n, DIM, config.m)
    check_graph_file(ordered, n, DIM, config.m)
    before, after = (HnswSegment.load(one, n, DIM, config.m) for one in (path, ordered))
    for ef in (10, 60):
        assert all(np.array_equal(one, other) for one, other in zip(before.query(unit(50, seed=3), 10, ef), after.query(unit(50, seed=3), 10, ef), strict=True))
    again = tmp_path / "again.bin"
    reorder_graph_file(path, again, n, DIM, config.m)
    assert again.read_bytes() == ordered.read_bytes()
    if n == 3000 and config is SMALL:
        assert length_of_links(ordered, n, config.m) < 0.85 * length_of_links(path, n, config.m)


def length_of_links(path: Path, n: int, m: int) -> float:
    """The mean distance of the places of linked nodes."""
    stride = 4 * DIM + 8 * m + 12
    ground = np.frombuffer(path.read_bytes(), np.uint8, n * stride, HEADER.itemsize).reshape(n, stride)
    links = np.ascontiguousarray(ground[:, : 8 * m + 4]).view("<u4").astype(np.int64)
    used = np.arange(2 * m)[None, :] < links[:, :1]
    return float(np.abs(links[:, 1:] - np.arange(n)[:, None])[used].mean())


STRIDE = 4 * DIM + 8 * SMALL.m + 12
GROUND = HEADER.itemsize
UPPER = GROUND + 500 * STRIDE


def first_raised(data: bytearray) -> int:
    """Where the length of the first node above the ground is."""
    place = UPPER
    while struct.unpack_from("<I", data, place)[0] == 0:
        place += 4
    return place


CRAFTED: dict[str, Callable[[bytearray], object]] = {
    "a link out of range": lambda data: struct.pack_into("<I", data, GROUND + 4, 2**31),
    "a link to just one too far": lambda data: struct.pack_into("<I", data, GROUND + 7 * STRIDE + 4, 500),
    "more links than there is room": lambda data: struct.pack_into("<H", data, GROUND, 2 * SMALL.m + 1),
    "a node marked as deleted": lambda data: struct.pack_into("<B", data, GROUND + 2, 1),
    "a label out of range": lambda data: struct.pack_into("<Q", data, GROUND + STRIDE - 8, 500),
    "one label twice": lambda data: struct.pack_into("<Q", data, GROUND + STRIDE - 8, struct.unpack_from("<Q", data, GROUND + 2 * STRIDE - 8)[0]),
    "an entry that is not there": lambda data: struct.pack_into("<I", data, 52, 500),
    "a level that is not there": lambda data: struct.pack_into("<i", data, 48, 60),
    "a negative level": lambda data: struct.pack_into("<i", data, 48, -7),
    "too few elements": lambda data: struct.pack_into("<Q", data, 16, 499),
    "less room than elements": lambda data: struct.pack_into("<Q", data, 8, 3),
    "a larger stride": lambda data: struct.pack_into("<Q", data, 24, STRIDE + 4),
    "data outside of an element": lambda data: struct.pack_into("<Q", data, 40, STRIDE),
    "a huge list above the ground": lambda data: struct.pack_into("<I", data, first_raised(data), 0xFFFFFFF0),
    "a list of half a level": lambda data: struct.pack_into("<I", data, first_raised(data), 4),
    "too many links above the ground": lambda data: struct.pack_into("<I", data, first_raised(data) + 4, SMALL.m + 1),
    "a link above the ground out of range": lambda data: struct.pack_into("<II", data, first_raised(data) + 4, 1, 777),
    "a link to a node that is not as high": lambda data: struct.pack_into("<II", data, first_raised(data) + 4, 1, low_node(data)),
}


def low_node(data: bytearray) -> int:
    return 1 if struct.unpack_from("<I", data, UPPER)[0] == 0 and struct.unpack_from("<I", data, UPPER + 4)[0] == 0 else 0


@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_file_is_refused_before_hnswlib_sees_it(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "graph.bin", 500, SMALL)
    data = bytearray(path.read_bytes())
    CRAFTED[what](data)
    assert bytes(data) != path.read_bytes()
    path.write_bytes(data)
    monkeypatch.setattr(hnswlib, "Index", lambda **arguments: pytest.fail("hnswlib saw the file"))
    with pytest.raises(CorruptArtifact, match="is no graph of 500 x 16 with m = 4"):
        HnswSegment.load(path, 500, DIM, SMALL.m)


def test_random_flips_are_refused_or_harmless(tmp_path: Path) -> None:
    path = saved(tmp_path / "graph.bin", 500, SMALL)
    original = path.read_bytes()
    rng = np.random.default_rng(8)
    refused = 0
    for _ in range(60):
        data = bytearray(original)
        place = int(rng.integers(0, len(data)))
        data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            loaded = HnswSegment.load(path, 500, DIM, SMALL.m)
        except CorruptArtifact:
            refused += 1
        else:
            loaded.query(unit(20, seed=4), 10, 64)  # a changed vector, or a link to another node: other answers, no crash
    assert 0 < refused < 60


# adds without ids after a load · two threads add without ids · replace_deleted · adds while another queries


def test_a_graph_can_not_be_changed() -> None:
    segment = HnswSegment.build(unit(), CONFIG)
    for name in ("add_items", "add", "mark_deleted", "resize_index", "set_ef", "init_index"):
        assert not hasattr(segment, name)


def test_labels_are_the_rows_in_whatever_order_they_were_added() -> None:
    vectors = unit(300)
    labels, _ = HnswSegment.build(vectors, CONFIG).query(vectors, 1, 300)
    assert (labels[:, 0] == np.arange(300)).all()


def test_threads_with_different_ef_get_the_answers_of_their_own() -> None:
    segment = HnswSegment.build(unit(2000), SMALL)
    queries = unit(200, seed=5)
    expected = {ef: segment.query(queries, 10, ef)[0] for ef in (16, 256)}
    assert (expected[16] != expected[256]).any()
    wrong: list[int] = []

    def ask(ef: int) -> None:
        for _ in range(15):
            if (segment.query(queries, 10, ef)[0] != expected[ef]).any():
                wrong.append(ef)

    threads = [threading.Thread(target=ask, args=(ef,)) for ef in (16, 256, 16, 256)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# asks for k > live rows (or a strict filter)


def test_more_neighbours_than_vectors_gives_all_of_them() -> None:
    assert HnswSegment.build(unit(3), CONFIG).query(unit(2), 10, 16)[0].shape == (2, 3)


def test_a_query_that_comes_to_too_few_does_not_fail_its_batch() -> None:
    # copies of one vector starve the graph: walks end among them and never see the rest
    vectors = np.concatenate([np.repeat(unit(1, seed=6), 400, axis=0), unit(100, seed=7)])
    segment = HnswSegment.build(vectors, SMALL)
    queries = np.concatenate([vectors[:1], unit(3, seed=7)[:3]])
    with pytest.raises(RuntimeError):
        segment._index.knn_query(queries, k=450)
    rows, distances = segment.query(queries, 450, 16)
    assert rows.shape == (4, 450)
    short = (rows == NOTHING).all(axis=1)
    assert short.any() and np.isinf(distances[short]).all()


# builds with 1 thread, one seed, one order


def test_two_builds_are_equal_byte_for_byte() -> None:
    first, second, other = (HnswSegment.build(unit(400), config).to_bytes() for config in (CONFIG, CONFIG, IndexConfig(seed=8)))
    assert first == second != other


def test_class_sorted_rows_are_shuffled_before_they_are_added() -> None:
    data = np.frombuffer(HnswSegment.build(unit(500), SMALL).to_bytes(), np.uint8)
    labels = data[GROUND:UPPER].reshape(500, STRIDE)[:, -8:].copy().view("<u8").ravel().astype(np.int64)
    assert labels.tolist() == insertion_order(unit(500), SMALL.m, SMALL.seed).tolist()
    assert sorted(labels.tolist()) == list(range(500)) and abs(np.corrcoef(labels, np.arange(500))[0, 1]) < 0.15
