"""Lists of objects: what they name is ingested, and what they say of it is there for filters and quotas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from discovery.config import Config
from discovery.errors import ConfigError, SourceNotFound
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages.curate import curate, preview
from discovery.stages.ingest import ingest
from discovery.stages.search import search
from discovery.types import Manifest
from discovery.workspace import Workspace, open_workspace

COUNT = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{number:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(Config(root=str(tmp_path / "root")).replace(dask={"scheduler": "inline"}, ingest={"decoders": 1})) as workspace:
        yield workspace


def rows_of(source: Path, ws: Workspace) -> tuple[Manifest, list[dict[str, object]]]:
    manifest = ingest([str(source)], ws)
    return manifest, ws.store.read_table(manifest).to_pylist()


def test_a_csv_names_files_beside_it_and_says_more_of_them(photos: Path, ws: Workspace) -> None:
    names = photos / "train.csv"
    names.write_text("path,label,stars\n00.png,cat,3\n01.png,dog,5\nnowhere.png,dog,1\n" + f"{photos}/02.png,,\n")
    manifest, rows = rows_of(names, ws)
    assert (manifest.rows, manifest.assets, manifest.rejections) == (4, 3, {"unreadable": 1})
    said = {Path(str(row["source_uri"])).name: row["attributes"] for row in rows}
    assert json.loads(str(said["00.png"])) == {"label": "cat", "stars": 3} and said["02.png"] is None
    assert [row["detail"] for row in rows if row["reason"]] == ["No such file or directory"]


def test_other_labels_read_nothing_and_are_the_new_ones(photos: Path, ws: Workspace) -> None:
    names = photos.parent / "list.parquet"
    pq.write_table(pa.table({"uri": [str(photos / "00.png"), str(photos / "01.png")], "tags": [["a", "b"], None]}), names)
    first, rows = rows_of(names, ws)
    assert json.loads(str(rows[0]["attributes"])) == {"tags": ["a", "b"]}
    pq.write_table(pa.table({"uri": [str(photos / "00.png"), str(photos / "01.png")], "tags": [["c"], ["d"]]}), names)
    before = ws.tally["ingest.objects_read"]
    second, rows = rows_of(names, ws)
    assert ws.tally["ingest.objects_read"] == before and second.id != first.id and second.unchanged == 2
    assert [json.loads(str(row["attributes"])) for row in rows] == [{"tags": ["c"]}, {"tags": ["d"]}]


def test_what_a_list_says_is_a_column_for_filters_and_quotas(photos: Path, ws: Workspace) -> None:
    names = photos / "train.csv"
    lines = [f"{number:02d}.png,{'cat' if number % 3 else 'dog'},{number / 10},{number % 2 == 0}" for number in range(COUNT)]
    names.write_text("\n".join(["file_name,label,share,night", *lines]) + "\n")
    run_pipeline([str(names)], ws)
    version = curate(parse_spec("name: dogs\nbudget: 100\nwhere: label = 'dog' AND share < 0.5 AND night\n"), ws)
    uris = [Path(row["source_uri"]).name for row in ws.store.read_table(version).to_pylist()]
    assert sorted(uris) == ["00.png"]
    version, _ = preview(parse_spec("name: even\nbudget: 6\nquotas: [{by: label, max: 3}]\n"), ws)
    assert version.assets == 6
    answer = search(ws, images=[photos / "03.png"], k=20, where="label = 'dog'")
    assert len(answer.results) == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "label,stars\ncat,1\n", "has no column of URIs: expected one named uri, .*; found label, stars"),
        ("a.csv", "uri,Width_PX\nx.png,1\n", "column 'width_px' has the name of a column of ours"),
        ("a.csv", "uri,label\n00.png,cat\n,dog\n", "has a row without a uri"),
        ("a.parquet", "hello", "cannot be read"),
        ("a.csv", "", "cannot be read|no column of URIs|is empty"),
    ],
)
def test_a_list_that_is_none_is_refused_before_anything_is_read(photos: Path, ws: Workspace, name: str, text: str, message: str) -> None:
    (photos / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        ingest([str(photos / name)], ws)
    assert ws.tally["ingest.objects_read"] == 0 and ws.catalog.records(Manifest.stage) == []


def test_a_list_that_does_not_exist_or_names_nothing(photos: Path, ws: Workspace) -> None:
    with pytest.raises(SourceNotFound, match="does not exist"):
        ingest([str(photos / "none.csv")], ws)
    (photos / "head.csv").write_text("uri,label\n")
    with pytest.raises(SourceNotFound, match="is empty"):
        ingest([str(photos / "head.csv")], ws)


def test_a_row_that_names_a_folder_is_a_rejection_that_says_what_to_do(photos: Path, ws: Workspace) -> None:
    (photos / "more").mkdir()
    (photos / "list.csv").write_text("uri,label\n00.png,cat\nmore,dog\nmore/,bird\n")
    manifest, rows = rows_of(photos / "list.csv", ws)
    assert (manifest.assets, manifest.rejections) == (1, {"unreadable": 1})  # both rows name one folder
    assert rows[1]["detail"] == "a folder, where a list names files: name them one a row, or make the folder a source of its own"


def test_a_list_inside_a_folder_is_a_file_like_others(photos: Path, ws: Workspace) -> None:
    (photos / "train.csv").write_text("uri\n00.png\n")
    manifest, _ = rows_of(photos, ws)
    assert manifest.rejections == {"unsupported_format": 1} and manifest.assets == COUNT
