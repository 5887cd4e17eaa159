"""Search over a real chain: many at once, a second look, filters with copies, and the same in Python as on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import discovery
from discovery.api import Library
from discovery.cli import main
from discovery.core.knn import exact_knn
from discovery.errors import InvalidInput, UnknownRecord
from discovery.pipeline import run_pipeline
from discovery.stages.search import MOST_RERANKED, SecondLook

KINDS, EACH, COPIES = 6, 8, 5


def picture(kind: int, number: int) -> Image.Image:
    """One of a kind: the same coarse pattern in the same colours, moved and changed a little."""
    rng = np.random.default_rng(kind)
    coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.float64)
    changed = np.clip(coarse + np.random.default_rng(100 * kind + number).normal(0, 22, coarse.shape), 0, 255)
    return Image.fromarray(changed.astype(np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "photos"
    for kind in range(KINDS):
        (folder / f"kind-{kind}").mkdir(parents=True)
        for number in range(EACH):
            picture(kind, number).save(folder / f"kind-{kind}" / f"{number}.png")
    (folder / "copies").mkdir()
    for number in range(COPIES):  # the same pixels in other bytes
        picture(0, number).save(folder / "copies" / f"copy-{number}.png", compress_level=1)
    return folder


@pytest.fixture(scope="module")
def library(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    root = tmp_path_factory.mktemp("searched") / "store"
    settings = root.parent / "discovery.toml"
    settings.write_text('[dask]\nscheduler = "inline"\n[index]\nexact_rows = 10\nsegment_rows = 20\nm = 8\nexact_queries = 0\n')
    with discovery.open(root, settings) as found:
        run_pipeline([str(photos)], found.workspace, curate_default=False)
        yield found


def uri_names(results: list[object]) -> list[str]:
    return ["/".join(result.source_uri.split("/")[-2:]) for result in results]  # type: ignore[attr-defined]


def test_the_index_of_the_chain_has_graphs_and_each_set_of_pixels_once(library: Library) -> None:
    snapshot = library.index
    assert snapshot.elements == KINDS * EACH and len(snapshot.segments) >= 2 and snapshot.is_certified


def test_many_at_once_are_answered_as_one_by_one(library: Library, photos: Path) -> None:
    some = [result.asset_id for result in library.search(image=photos / "kind-1" / "0.png", k=12).results]
    asked = [*some, library.query(image=photos / "kind-2" / "3.png"), library.query(like=some[:2], unlike=some[5])]
    together = library.search_many(asked, k=7)
    alone = [library.search(asset=one, k=7) for one in some]
    alone += [library.search(image=photos / "kind-2" / "3.png", k=7), library.search(like=some[:2], unlike=some[5], k=7)]
    assert [answer.results for answer in together] == [answer.results for answer in alone]
    assert all(len(answer.results) == 7 and answer.latency_ms > 0 for answer in together)


def test_neighbours_of_vectors_are_those_of_exact_search(library: Library) -> None:
    ids = [result.asset_id for result in library.search(asset=first_asset(library), k=KINDS * EACH).results]
    vectors = library.vectors(ids)
    found, distances = library.neighbours(vectors[:5], k=4)
    rows, exact = exact_knn(vectors[:5], vectors, 3, reference_ids=ids)
    assert [names[0] for names in found] == ids[:5] and np.allclose(distances[:, 0], 0, atol=1e-6)
    for number in range(5):
        listed = [ids[row] for row in rows[number]]
        assert set(found[number][:2]) <= {*listed, first_asset(library)}
    assert (distances[:, :3] <= exact + 1e-5).all()
    with pytest.raises(UnknownRecord):
        library.vectors(["f" * 64])


def first_asset(library: Library) -> str:
    return str(library.workspace.store.read_table(library.workspace.catalog.records("ingest", 1)[0])["asset_id"][0].as_py())


@pytest.mark.parametrize("look", [{"expand": 5}, {"augment": 5}, {"rerank": 30}, {"expand": 3, "augment": 3, "rerank": 20, "diverse": True}])
def test_a_second_look_finds_the_kind_and_keeps_the_plain_distance(library: Library, photos: Path, look: dict[str, int]) -> None:
    plain = {result.asset_id: result.distance for result in library.search(image=photos / "kind-3" / "0.png", k=KINDS * EACH).results}
    answer = library.search(image=photos / "kind-3" / "0.png", k=5, **look).results  # type: ignore[arg-type]
    assert len({result.asset_id for result in answer}) == 5
    assert all(result.distance == pytest.approx(plain[result.asset_id], abs=1e-5) and result.reranked is not None for result in answer)
    if not look.get("diverse"):
        assert all(name.startswith("kind-3") for name in uri_names(answer))
        assert [result.reranked for result in answer] == sorted(result.reranked for result in answer)  # type: ignore[type-var]


def test_a_diverse_answer_begins_with_the_nearest_and_spreads(library: Library, photos: Path) -> None:
    near = library.search(image=photos / "kind-4" / "1.png", k=5).results
    spread = library.search(image=photos / "kind-4" / "1.png", k=5, diverse=True).results
    assert spread[0].asset_id == near[0].asset_id and len(spread) == 5

    def nearest_pair(results: list[object]) -> float:
        vectors = library.vectors([result.asset_id for result in results])  # type: ignore[attr-defined]
        return float((1 - vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].min())

    assert nearest_pair(spread) > nearest_pair(near)


@pytest.mark.parametrize("look", [{"expand": -1}, {"rerank": MOST_RERANKED + 1}, {"augment": 1000}])
def test_impossible_second_looks_are_refused(look: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="is a number of neighbours from 0 to"):
        SecondLook(**look)  # type: ignore[arg-type]


def test_a_filter_also_finds_a_picture_by_the_copy_that_passes(library: Library, photos: Path) -> None:
    for where in ("category = 'copies'", "category = 'copies' AND width_px > 0"):
        answer = library.search(image=photos / "kind-0" / "0.png", k=20, where=where).results
        assert sorted(uri_names(answer)) == sorted(f"copies/copy-{number}.png" for number in range(COPIES))
    assert library.search(image=photos / "kind-0" / "0.png", where="width_px > 1000000").results == []


def test_an_example_that_is_only_a_copy_stands_for_its_pixels(library: Library, photos: Path) -> None:
    rows = library.workspace.store.read_table(library.workspace.catalog.records("ingest", 1)[0], columns=["asset_id", "source_uri"]).to_pylist()
    by_name = {row["source_uri"].rsplit("/", 2)[-2] + "/" + row["source_uri"].rsplit("/", 1)[-1]: row["asset_id"] for row in rows}
    for number in range(COPIES):
        a, b = by_name[f"copies/copy-{number}.png"], by_name[f"kind-0/{number}.png"]
        first, second = (library.search(asset=one[:20], k=6).results for one in (a, b))
        assert [result.asset_id for result in first] == [result.asset_id for result in second]
        assert not {a, b} & {result.asset_id for result in first}


def test_the_command_line_gives_the_same(library: Library, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = library.workspace.config.root
    config = str(Path(root).parent / "discovery.toml")
    some = [result.asset_id for result in library.search(image=photos / "kind-5" / "2.png", k=3).results]
    (tmp_path / "queries.txt").write_text(f"{some[0]}\n\n{photos / 'kind-2' / '1.png'}\n{some[1][:16]}\n")
    capsys.readouterr()
    assert main(["search", "--queries", str(tmp_path / "queries.txt"), "-k", "4", "--expand", "3", "--root", root, "--config", config, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["queries"]
    expected = library.search_many([some[0], library.query(image=photos / "kind-2" / "1.png"), some[1]], k=4, expand=3)
    assert [[row["asset_id"] for row in one["results"]] for one in found] == [[row.asset_id for row in one.results] for one in expected]
    assert all({"distance", "reranked"} <= row.keys() for one in found for row in one["results"])
    for text, message in (("\n \n", "holds no asset id"), ("f" * 64 + "\n", "No indexed asset")):
        (tmp_path / "queries.txt").write_text(text)
        assert main(["search", "--queries", str(tmp_path / "queries.txt"), "--root", root, "--config", config]) == 2
        assert message in capsys.readouterr().err
    assert main(["search", "--queries", "x", "--asset", some[0], "--root", root, "--config", config]) == 2
    assert "--queries names all examples itself" in capsys.readouterr().err
