"""Search by parts through the whole chain: found where it is, described once, only what may be found, refused when too much is lacking."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import discovery
from discovery.config import Config
from discovery.errors import InvalidInput, UnknownRecord
from discovery.stages.check import check
from discovery.stages.dedupe import dedupe
from discovery.stages.embed import embed
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.stages.query import Box
from discovery.stages.region_search import describe_all, search_by_region
from discovery.stages.regions import region_query, search_regions
from discovery.stages.score import score
from discovery.stages.search import search
from discovery.stages.verify import verify
from discovery.types import RegionShard
from discovery.workspace import Workspace, open_workspace

ROWS, COLUMNS, SIDE = 3, 3, 160  # a picture of the folder is 3 x 3 parts of 160 px, each a drawing of its own


def workspace(root: Path, **regions: object):
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, regions=regions))


def part(seed: int) -> Image.Image:
    """Six shapes in colours of their own on another."""
    rng = np.random.default_rng(seed)

    def colour() -> tuple[int, ...]:
        return tuple(rng.integers(0, 256, 3).tolist())

    image = Image.new("RGB", (SIDE, SIDE), colour())
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        points = [tuple(point) for point in rng.integers(0, SIDE, (3, 2)).tolist()]
        kind = rng.integers(0, 3)
        if kind == 0:
            draw.polygon(points, fill=colour())
        elif kind == 1:
            (x, y), r = points[0], int(rng.integers(8, 40))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour(), outline=colour(), width=5)
        else:
            draw.line(points, fill=colour(), width=int(rng.integers(4, 14)))
    return image


def collage(number: int) -> Image.Image:
    whole = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for row in range(ROWS):
        for column in range(COLUMNS):
            whole.paste(part(1000 * number + 10 * row + column), (column * SIDE, row * SIDE))
    return whole


def fill(source: Path, ws: Workspace) -> None:
    manifest = ingest([str(source)], ws)
    embeddings = embed(manifest, check(manifest, ws), ws)
    duplicates = dedupe(manifest, embeddings, ws)
    score(manifest, embeddings, duplicates, ws)
    index(manifest, embeddings, duplicates, ws)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with 12 collages, nothing of whose regions is known."""
    folder = tmp_path_factory.mktemp("collages")
    source = folder / "source"
    source.mkdir()
    for number in range(12):
        collage(number).save(source / f"{number:02}.png")
    with workspace(folder / "root") as ws:
        fill(source, ws)
    return folder / "root"


def crop(path: Path, number: int, row: int, column: int) -> Path:
    """That part of a collage, larger than it is there, as JPEG."""
    file = path / f"{number}-{row}-{column}.jpg"
    part(1000 * number + 10 * row + column).resize((190, 190), Image.Resampling.BICUBIC).save(file, quality=85)
    return file


def test_a_part_finds_its_picture_where_it_is_though_the_whole_does_not_and_is_described_once(root, tmp_path):
    asked = [(number, number % ROWS, (number // 3) % COLUMNS) for number in range(12)]
    with workspace(root) as ws:
        by_whole = by_part = at_place = 0
        for number, row, column in asked:
            file = crop(tmp_path, number, row, column)
            (nearest, *others) = search_by_region(ws, images=[file], k=3).results
            assert [nearest.distance, *(r.distance for r in others)] == sorted([nearest.distance, *(r.distance for r in others)])
            if Path(nearest.source_uri).name == f"{number:02}.png":
                by_part += 1
                x, y, width, height = nearest.box
                at_place += x <= (column + 0.5) * SIDE <= x + width and y <= (row + 0.5) * SIDE <= y + height
                assert x >= 0 and y >= 0 and x + width <= COLUMNS * SIDE and y + height <= ROWS * SIDE
            by_whole += Path(search(ws, images=[file], k=1).results[0].source_uri).name == f"{number:02}.png"
        assert by_part >= 8 and by_part >= 2 * by_whole and at_place >= 6  # measured: 10, 1 and 10 of 12
        assert (ws.tally["region_shard.computed"], ws.tally["region_shard.reused"]) == (12, 0)
        assert verify(ws).corrupt == verify(ws).missing == []
    with workspace(root) as ws:
        assert len(describe_all(ws)) == 1 and (ws.tally["region_shard.computed"], ws.tally["region_shard.reused"]) == (0, 12)


def test_a_box_of_an_asset_finds_others_only_and_a_filter_holds(root, tmp_path):
    with workspace(root) as ws:
        everything = search_by_region(ws, images=[crop(tmp_path, 4, 1, 1)], k=20).results
        assert len(everything) == 12
        asset_id = everything[0].asset_id
        found = search_by_region(ws, like=[asset_id[:10]], box=Box(160, 160, 160, 160), k=20).results
        assert len(found) == 11 and asset_id not in {result.asset_id for result in found}
        some = search_by_region(ws, images=[crop(tmp_path, 4, 1, 1)], where="source_uri LIKE '%/0_.png'", k=20).results
        assert {Path(result.source_uri).name for result in some} == {f"{number:02}.png" for number in range(10)}
        assert [r.asset_id for r in some] == [r.asset_id for r in everything if r.asset_id in {s.asset_id for s in some}]


def test_the_answer_does_not_depend_on_how_shards_are_cut(root, tmp_path):
    source = root.parent / "source"
    cut = tmp_path / "root"
    with open_workspace(Config(root=str(cut)).replace(dask={"scheduler": "inline", "shard_assets": 5})) as ws:
        fill(source, ws)
        found = search_by_region(ws, images=[crop(tmp_path, 7, 2, 1)], k=12).results
        shards = [record for record in ws.catalog.records(RegionShard.stage) if isinstance(record, RegionShard)]
        assert sorted(shard.assets for shard in shards) == [2, 5, 5]
    with workspace(root) as ws:
        assert search_by_region(ws, images=[crop(tmp_path, 7, 2, 1)], k=12).results == found
        assert search_by_region(ws, images=[crop(tmp_path, 7, 2, 1)], k=2).results == found[:2]


def test_regions_of_a_grown_source_cost_what_is_new_also_when_they_come_with_embedding(root, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20, 23):
        collage(number).save(source / f"{number}.png")
    with workspace(tmp_path / "root", at_embed=True) as ws:
        fill(source, ws)
        assert ws.tally["region_shard.computed"] == 3
        collage(23).save(source / "23.png")
        fill(source, ws)
        assert (ws.tally["region_shard.computed"], ws.tally["region_shard.reused"]) == (4, 3)
        nearest = search_by_region(ws, images=[crop(tmp_path, 23, 0, 0)], k=1).results[0]
        assert Path(nearest.source_uri).name == "23.png" and ws.tally["region_shard.computed"] == 4


def test_a_search_that_would_describe_too_many_says_what_to_do_and_describes_none(root, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        collage(number).save(source / f"{number}.png")
    with workspace(tmp_path / "root", at_search=2) as ws:
        fill(source, ws)
        with pytest.raises(InvalidInput, match=r"3 of 3 assets have no regions yet, and a search computes 2 at most.*discovery regions"):
            search_by_region(ws, images=[crop(tmp_path, 1, 0, 0)])
        assert ws.tally["region_shard.computed"] == 0
        assert len(search_by_region(ws, images=[crop(tmp_path, 1, 0, 0)], where="source_uri LIKE '%/1.png'").results) == 1
        describe_all(ws)
        assert len(search_by_region(ws, images=[crop(tmp_path, 1, 0, 0)]).results) == 3


def test_what_cannot_be_asked_is_refused(root, tmp_path):
    with workspace(root) as ws:
        file = crop(tmp_path, 1, 0, 0)
        for arguments, error, said in (
            ({}, InvalidInput, "Nothing to search for"),
            ({"images": [file], "k": 0}, InvalidInput, "-k must be"),
            ({"images": [file, file], "box": Box(0, 0, 5, 5)}, InvalidInput, "A box is a part of one picture"),
            ({"images": [file], "box": Box(0, 0, 500, 5)}, InvalidInput, "outside of the picture"),
            ({"images": [tmp_path / "none.jpg"]}, InvalidInput, "does not exist"),
            ({"like": ["0000"]}, UnknownRecord, "indexed asset"),
        ):
            with pytest.raises(error, match=said):
                search_by_region(ws, **arguments)
        query = region_query(file.read_bytes(), ws)
        assert search_regions(query, [], 3, ws, dict.fromkeys) == []
        with pytest.raises(InvalidInput, match=r"Expected a \(432,\) query"):
            search_regions(query[:7], [], 3, ws, dict.fromkeys)


def test_in_python_a_box_is_a_part_and_whole_says_otherwise(root, tmp_path):
    settings = tmp_path / "discovery.toml"
    settings.write_text('[dask]\nscheduler = "inline"\n')
    file = crop(tmp_path, 5, 1, 2)
    with discovery.open(root, settings) as library:
        found = library.search(image=file, region=True, k=4).results
        assert found == search_by_region(library.workspace, images=[file], k=4).results and all(result.box for result in found)
        assert all(result.box for result in library.search(image=file, box="10,10,100,100", k=2).results)
        assert not any(result.box for result in library.search(image=file, box="10,10,100,100", whole=True, k=2).results)
        for more in ({"whole": True}, {"expand": 3}, {"text": "a dog"}):
            with pytest.raises(InvalidInput, match="A search by parts of pictures goes with"):
                library.search(image=file, region=True, **more)
