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

from discovery.adapters.lists import read_list
from discovery.config import Config
from discovery.errors import ConfigError, SourceNotFound
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages.asset_table import with_attributes
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
    assert json.loads(str(said["00.png"])) == {"label": "cat", "stars": "3"} and said["02.png"] is None
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
        ("a.parquet", "hello", "cannot be read"),
        ("a.csv", "", "cannot be read: its first line is empty"),
    ],
)
def test_a_list_that_is_none_is_refused_before_anything_is_read(photos: Path, ws: Workspace, name: str, text: str, message: str) -> None:
    (photos / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        ingest([str(photos / name)], ws)
    assert ws.tally["ingest.objects_read"] == 0 and ws.catalog.records(Manifest.stage) == []


def details(rows: list[dict[str, object]]) -> dict[str, tuple[object, str]]:
    """(reason, detail) of each rejection, by what follows the list's folder in its address."""
    return {str(row["source_uri"]).rsplit("/", 1)[-1]: (row["reason"], str(row["detail"])) for row in rows if row["reason"]}


def test_a_bad_row_is_a_rejection_and_the_others_are_read(photos: Path, ws: Workspace) -> None:
    names = photos / "l.csv"
    good = [f"{number:02d}.png,3,{(photos / f'{number:02d}.png').stat().st_size}" for number in range(3)]
    bad = ["04.png,3", ",3,10", "05.png,3,-5", "06.png,3,many", '"07.png,3,10']
    names.write_text("\n".join(["path,stars,size_bytes", *good, "", "03.png,n/a,", *bad]) + "\n")
    manifest, rows = rows_of(names, ws)
    assert (manifest.assets, manifest.rejections) == (4, {"corrupt": 5})
    found = details(rows)
    assert {reason for reason, _ in found.values()} == {"corrupt"}
    assert found["l.csv#row=5"][1] == "line 7: 2 values under 3 columns; put values that hold the separator in quotes"
    assert found["l.csv#row=6"][1] == "path is None; the name of an object is expected"
    assert found["l.csv#row=7"][1] == "size_bytes is '-5'; a whole number of 0 or more, or nothing, is expected"
    assert found["l.csv#row=8"][1] == "size_bytes is 'many'; a whole number of 0 or more, or nothing, is expected"
    assert found["l.csv#row=9"][1].startswith("lines 11 to 11: ") and "a quote that is not closed" in found["l.csv#row=9"][1]
    before = ws.tally["ingest.objects_read"]
    assert rows_of(names, ws)[0] == manifest and ws.tally["ingest.objects_read"] == before  # settled: not tried again
    names.write_text(names.read_text().replace("04.png,3\n", "04.png,3,,\n"))
    assert details(rows_of(names, ws)[1])["l.csv#row=5"][1].startswith("line 7: 4 values under 3 columns")


def test_a_bad_row_far_behind_costs_that_row(tmp_path: Path) -> None:
    lines = ["uri,stars", *(f"{number}.png,3" for number in range(60_000)), "x.png,n/a", "y.png", "z.png,4"]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    entries = list(read_list(tmp_path / "l.csv", "/a/l.csv", ()))
    assert len(entries) == 60_003 and [entry.address for entry in entries if entry.problem] == ["/a/l.csv#row=60002"]
    assert [entry.uri for entry in entries[59_999:]] == ["/a/59999.png", "/a/x.png", "/a/l.csv#row=60002", "/a/z.png"]


def test_names_that_look_like_numbers_or_truth_values_are_names(photos: Path, ws: Workspace) -> None:
    for number, name in enumerate(("1", "2", "f", "t")):
        (photos / f"{number:02d}.png").rename(photos / name)
    (photos / "numbers.csv").write_text("path\n1\n2\n")
    (photos / "letters.csv").write_text("path\nf\nt\n")
    pq.write_table(pa.table({"uri": [1, 2]}), photos / "numbers.parquet")
    for name in ("numbers.csv", "letters.csv", "numbers.parquet"):
        manifest, _ = rows_of(photos / name, ws)
        assert (manifest.assets, manifest.rejected) == (2, 0)


def test_rows_that_are_not_utf8_are_named_and_the_others_are_read(photos: Path, ws: Workspace) -> None:
    names = photos / "l.csv"
    names.write_bytes("path;label\n00.png;cat\n01.png;Käfer\n02.png;dog\n".encode("latin-1"))
    manifest, rows = rows_of(names, ws)
    assert manifest.assets == 2 and details(rows) == {"l.csv#row=2": ("corrupt", "line 3 is not UTF-8; save the list as UTF-8")}
    names.write_text("path;label\n00.png;cat\n01.png;Käfer\n02.png;dog\n", encoding="utf-8-sig")  # as Excel writes it
    manifest, rows = rows_of(names, ws)
    assert manifest.rejected == 0 and json.loads(str(rows[1]["attributes"])) == {"label": "Käfer"}


def test_rows_for_one_object_are_merged_and_the_one_that_contradicts_is_named(photos: Path, ws: Workspace) -> None:
    rows = ["00.png,cat,", "01.png,dog,", "00.png,,5", "01.png,dog,4", "00.png,dog,5", "00.png,cow,6", "02.png,,", "02.png,owl,"]
    (photos / "l.csv").write_text("\n".join(["path,label,stars", *rows]))
    manifest, found = rows_of(photos / "l.csv", ws)
    said = {Path(str(row["source_uri"])).name: json.loads(str(row["attributes"])) for row in found if row["asset_id"]}
    assert said == {"00.png": {"label": "cat", "stars": "5"}, "01.png": {"label": "dog", "stars": "4"}, "02.png": {"label": "owl"}}
    problem = f"label is 'dog' here and 'cat' in {photos}/l.csv#row=1, which counts; 1 more rows contradict"
    assert details(found) == {"l.csv#row=5": ("corrupt", problem)}
    assert rows_of(photos / "l.csv", ws)[0] == manifest


def test_a_name_that_no_file_system_takes_costs_its_row(photos: Path, ws: Workspace) -> None:
    names = ["00.png", "~nobody-of-that-name/x.png", "file://%00.png", "no-such-protocol://x.png", "a\0b.png", "x" * 5000]
    (photos / "l.csv").write_text("\n".join(["path", *names]))
    manifest, _ = rows_of(photos / "l.csv", ws)
    assert (manifest.assets, manifest.rejections) == (1, {"corrupt": 1, "unreadable": 4})


def test_columns_are_numbers_or_truth_values_where_all_values_are() -> None:
    columns = {
        "stars": (["3", " 4.5", None], [3.0, 4.5, None]),
        "rating": ([3, "4", "1e-05"], [3.0, 4.0, 1e-05]),  # a sidecar's number and a list's text
        "night": (["True", "false", True], [True, False, True]),
        "mixed": (["3", "n/a", None], ["3", "n/a", None]),
        "zip": (["01234", "12"], ["01234", "12"]),
        "hash": (["1e5", "12"], ["1e5", "12"]),
        "id": (["9007199254740993", "1"], ["9007199254740993", "1"]),
        "day": (["2026-05-01", "2026-11-23"], ["2026-05-01", "2026-11-23"]),
    }
    for name, (values, expected) in columns.items():
        table = with_attributes(pa.table({"n": range(len(values))}), [json.dumps({name: value}) for value in values])
        assert table[name].to_pylist() == expected, name


def test_nan_of_parquet_is_null(photos: Path, ws: Workspace) -> None:
    nan, infinity = float("nan"), float("inf")
    columns = {"uri": ["00.png", "01.png"], "score": [nan, 0.5], "pair": [[1.0, nan], [infinity, 2.0]]}
    pq.write_table(pa.table(columns), photos / "l.parquet")
    _, rows = rows_of(photos / "l.parquet", ws)
    assert [row["attributes"] for row in rows] == ['{"pair": [1.0, null]}', '{"pair": [null, 2.0], "score": 0.5}']


def test_a_struct_of_parquet_tells_no_position(tmp_path: Path) -> None:
    columns = {"uri": ["a.png"], "shot": [{"lat": 52.5, "by": "Ann"}], "spot": [{"lon": 13.4}], "gps": [1.0]}
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    (entry,) = read_list(tmp_path / "l.parquet", "/a/l.parquet", ())
    assert json.loads(entry.attributes) == {"shot": {"by": "Ann"}}
    (entry,) = read_list(tmp_path / "l.parquet", "/a/l.parquet", (), keep_place=True)
    assert json.loads(entry.attributes) == {"shot": {"lat": 52.5, "by": "Ann"}, "spot": {"lon": 13.4}, "gps": 1.0}


def test_a_list_that_does_not_exist_or_names_nothing(photos: Path, ws: Workspace) -> None:
    with pytest.raises(SourceNotFound, match="does not exist"):
        ingest([str(photos / "none.csv")], ws)
    (photos / "head.csv").write_text("uri,label\n")
    with pytest.raises(SourceNotFound, match="is empty"):
        ingest([str(photos / "head.csv")], ws)


def test_a_row_that_names_a_folder_is_a_rejection_that_says_what_to_do(photos: Path, ws: Workspace) -> None:
    (photos / "more").mkdir()
    (photos / "list.csv").write_text("uri,label\n00.png,cat\nmore,dog\nmore/,dog\n")
    manifest, rows = rows_of(photos / "list.csv", ws)
    assert (manifest.assets, manifest.rejections) == (1, {"unreadable": 1})  # both rows name one folder
    assert rows[1]["detail"] == "a folder, where a list names files: name them one a row, or make the folder a source of its own"


def test_a_list_inside_a_folder_is_a_file_like_others(photos: Path, ws: Workspace) -> None:
    (photos / "train.csv").write_text("uri\n00.png\n")
    manifest, _ = rows_of(photos, ws)
    assert manifest.rejections == {"unsupported_format": 1} and manifest.assets == COUNT
