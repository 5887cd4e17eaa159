"""Batches in any order and of any size give the pairs, groups and keepers of comparing all at once; groups keep their ids."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from discovery.adapters.dask_map import LazyDaskMap
from discovery.adapters.planted import planted
from discovery.config import DaskConfig, DedupeConfig
from discovery.core.duplicates import carry_group_ids
from discovery.core.projection import fit_projection
from discovery.core.relations import SAME
from discovery.stages import copies
from discovery.stages.copies import Assets, Pair, Proposer, find_pairs, group_assets
from discovery.stages.dedupe import duplicates_table
from discovery.stages.measure import measure_asset
from tests.core.pictures import scene

EDITS = ("resize", "crop", "grey", "mirror")
CONFIG = DedupeConfig()


class Library:
    """Three scenes with four copies each, two loners, one file whose pixels are another's: what each asset's columns are."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        pictures: list[tuple[Image.Image, np.ndarray]] = []
        for seed in range(3):
            original, theme = scene(seed, 240, 180), rng.normal(size=24)
            pictures.append((original, theme))
            for name in EDITS:
                with Image.open(io.BytesIO(planted(original, name, np.random.default_rng(seed)))) as copy:
                    pictures.append((copy.convert("RGB"), theme + 0.1 * rng.normal(size=24)))
        pictures += [(scene(50, 240, 180), rng.normal(size=24)), (scene(51, 240, 180), rng.normal(size=24)), pictures[2]]
        self.rows: dict[str, tuple[dict[str, object], np.ndarray, tuple[int, int], str]] = {}
        self.pictures: dict[str, np.ndarray] = {}
        for number, (image, vector) in enumerate(pictures):
            sink = io.BytesIO()
            image.save(sink, "PNG", compress_level=number % 9 + 1)
            data = sink.getvalue()
            asset_id = hashlib.sha256(data + bytes([number])).hexdigest()
            row = measure_asset(asset_id, data)
            pixels = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
            self.rows[asset_id] = (row, (vector / np.linalg.norm(vector)).astype(np.float32), image.size, pixels)
            self.pictures[asset_id] = np.frombuffer(row["picture_64"], np.uint8)  # type: ignore[arg-type]
        every = np.stack([vector for _, vector, _, _ in self.rows.values()])
        self.proposer = Proposer("made for this test", 0.5, fit_projection(every, 4, 0.5))

    def assets(self, ids: set[str]) -> Assets:
        ordered = sorted(ids)
        rows = [self.rows[asset_id] for asset_id in ordered]
        return Assets(
            ids=ordered,
            vectors=np.stack([vector for _, vector, _, _ in rows]),
            pdq=np.stack([np.frombuffer(row["pdq_hash"], np.uint8) for row, _, _, _ in rows]),  # type: ignore[call-overload]
            pdq_quality=np.array([row["pdq_quality"] for row, _, _, _ in rows], np.int64),
            luma=np.stack([np.frombuffer(row["luma_16"], np.uint8) for row, _, _, _ in rows]),  # type: ignore[call-overload]
            sharpness=np.array([row["sharpness"] for row, _, _, _ in rows], np.float64),
            size=np.array([size for _, _, size, _ in rows], np.int64),
            pixel_sha256=[pixels for _, _, _, pixels in rows],
            burst=[None] * len(rows),
            source_rows=[1] * len(rows),
        )

    def pairs(self, assets: Assets, earlier: list[Pair], complete: set[str]) -> list[Pair]:
        return find_pairs(assets, earlier, frozenset(complete), self.proposer, CONFIG, lambda wanted: {i: self.pictures[i] for i in wanted})


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.fixture(scope="module")
def at_once(library: Library) -> tuple[Assets, list[Pair]]:
    assets = library.assets(set(library.rows))
    return assets, library.pairs(assets, [], set())


def test_the_copies_of_each_scene_are_found(library: Library, at_once: tuple[Assets, list[Pair]]) -> None:
    assets, pairs = at_once
    names = list(library.rows)
    linked = {frozenset((pair.asset_a, pair.asset_b)) for pair in pairs}
    for scene_number in range(3):
        first = 5 * scene_number
        assert all(frozenset((names[first], names[first + k])) in linked for k in range(1, 5))
    scene_of = {name: number // 5 if number < 15 else number for number, name in enumerate(names)} | {names[17]: 0}
    assert all(scene_of[pair.asset_a] == scene_of[pair.asset_b] for pair in pairs)
    table = duplicates_table(assets, group_assets(assets, pairs), pairs, {}).to_pylist()
    assert {row["relation"] for row in table} >= {"keeper", "single", "resized", "cropped", "recoloured", "mirrored"}
    assert [pair.relation for pair in pairs if {pair.asset_a, pair.asset_b} == {names[2], names[17]}] == ["same_pixels"]
    whys = {row["kept_because"].split(" (")[0] for row in table if row["relation"] == "keeper"}
    assert whys <= {"most pixels", "of those with most pixels", "of equal size"} and whys


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_in_any_order_give_what_comparing_all_gives(data: st.DataObject, library: Library, at_once: tuple[Assets, list[Pair]]) -> None:
    order = data.draw(st.permutations(sorted(library.rows)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=4)))
    known: set[str] = set()
    pairs: list[Pair] = []
    names: dict[str, str] = {}
    for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
        everything = known | set(order[start:end])
        assets = library.assets(everything)
        pairs = library.pairs(assets, pairs, known)
        groups = group_assets(assets, pairs)
        before, names = names, dict(zip(assets.ids, carry_group_ids(assets.ids, groups.keeper, names), strict=True))
        _assert_ids_stay(before, names)
        known = everything
    full_assets, full_pairs = at_once
    assert pairs == full_pairs  # to the last digit of every measure
    full = group_assets(full_assets, full_pairs)
    assert (assets.ids, groups.keeper.tolist()) == (full_assets.ids, full.keeper.tolist())
    assert groups.component_index.tolist() == full.component_index.tolist()
    rows = duplicates_table(assets, groups, pairs, {}).to_pylist()
    assert rows == duplicates_table(full_assets, full, full_pairs, {}).to_pylist()


def test_workers_find_what_one_process_finds(library: Library, at_once: tuple[Assets, list[Pair]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    spread = LazyDaskMap(DaskConfig(workers=2), lambda message: None)

    def workers(units: int) -> LazyDaskMap:
        asked.append(units)
        return spread

    monkeypatch.setattr(copies, "WORTH_SPREADING", 0)
    monkeypatch.setattr(copies, "PAIRS_A_TASK", 4)
    assets = library.assets(set(library.rows))
    reports: list[str] = []
    try:
        found = find_pairs(
            assets, [], frozenset(), library.proposer, CONFIG, lambda wanted: {i: library.pictures[i] for i in wanted}, reports.append, workers
        )
    finally:
        spread.close()
    assert found == at_once[1]
    assert asked[0] > 3 and reports[-1].split()[1] == reports[-1].split()[3]


def test_words_are_on_a_picture_only_where_the_rest_of_it_is_alike(library: Library) -> None:
    original = scene(0, 240, 180)
    with Image.open(io.BytesIO(planted(original, "caption", np.random.default_rng(1)))) as copy:
        pictures = [original, copy.convert("RGB")]
    rows = []
    for number, image in enumerate(pictures):
        sink = io.BytesIO()
        image.save(sink, "PNG")
        rows.append(measure_asset(str(number), sink.getvalue()))
    some = library.assets(set(list(library.rows)[:2]))
    shown = dict(zip(some.ids, (np.frombuffer(row["picture_64"], np.uint8) for row in rows), strict=True))
    alike = replace(some, pdq=np.stack([np.frombuffer(row["pdq_hash"], np.uint8) for row in rows]))
    unlike = replace(alike, pdq=np.stack([alike.pdq[0], ~alike.pdq[0]]))
    (words, _), (chance, _) = (next(copies.laid_on_each_other(one, np.array([[0, 1]]), shown)) for one in (alike, unlike))
    assert words.relation == "captioned" and words.difference <= CONFIG.max_difference
    assert chance.relation != "captioned" and chance.difference > CONFIG.max_difference


def test_of_a_part_more_must_be_seen() -> None:
    whole = Pair("a", "b", "re_encoded", 0, 1.0, 1.0, 0.0, SAME)
    part = replace(whole, seen=replace(SAME, direction="part", width=0.5))
    assert copies.shows_enough(whole, 1.5 * CONFIG.min_rich, CONFIG) and not copies.shows_enough(part, 1.5 * CONFIG.min_rich, CONFIG)
    assert copies.shows_enough(part, 2 * CONFIG.min_rich, CONFIG)


def _assert_ids_stay(before: dict[str, str], after: dict[str, str]) -> None:
    """A group whose former members are still together, and alone with newcomers, has the id that it had."""
    together: dict[str, set[str]] = {}
    for asset_id, name in after.items():
        together.setdefault(name, set()).add(asset_id)
    former: dict[str, set[str]] = {}
    for asset_id, name in before.items():
        former.setdefault(name, set()).add(asset_id)
    for members in together.values():
        old = members & set(before)
        if old and former[before[min(old)]] == old:
            assert {after[asset_id] for asset_id in members} == {before[min(old)]}


def test_pairs_of_what_is_no_longer_listed_are_dropped(library: Library, at_once: tuple[Assets, list[Pair]]) -> None:
    _, pairs = at_once
    left = set(library.rows) - {pairs[0].asset_a}
    fewer = library.pairs(library.assets(left), pairs, set(library.rows))
    assert fewer == [pair for pair in library.pairs(library.assets(left), [], set())]
    assert pairs[0] not in fewer


def test_nothing_is_laid_on_anything_when_nothing_is_new(library: Library, at_once: tuple[Assets, list[Pair]], monkeypatch: pytest.MonkeyPatch) -> None:
    assets, pairs = at_once
    monkeypatch.setattr(copies, "align", lambda a, b: pytest.fail("a pair was compared again"))
    assert library.pairs(assets, pairs, set(library.rows)) == pairs


def test_a_pair_is_the_same_as_a_row_of_the_table_and_back(at_once: tuple[Assets, list[Pair]]) -> None:
    _, pairs = at_once
    assert [Pair.from_row(pair.row()) for pair in pairs] == pairs
