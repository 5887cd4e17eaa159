"""What belongs together is linked, what a sidecar says reaches the picture, and a place is kept only where it may be."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from discovery.config import Config
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages.asset_table import asset_table
from discovery.stages.curate import curate
from discovery.stages.history import current_snapshot
from discovery.stages.ingest import ingest
from discovery.types import Manifest
from discovery.workspace import Workspace, open_workspace
from tests.adapters.camera_files import dng, exif, photo

NOON = datetime(2026, 5, 1, 12, 0, 0)
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" xmp:Rating="{rating}">
<dc:subject><rdf:Bag><rdf:li>night</rdf:li><rdf:li>cat</rdf:li></rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"""


def opened(root: Path, **sections: dict[str, object]) -> Workspace:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, ingest={"decoders": 1}, **sections))


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with opened(tmp_path / "root") as workspace:
        yield workspace


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def rows_of(source: Path, ws: Workspace) -> tuple[Manifest, dict[str, dict[str, object]]]:
    """The manifest, and its rows by file name."""
    manifest = ingest([str(source)], ws)
    return manifest, {str(row["source_uri"]).removeprefix(f"{source}/"): row for row in ws.store.read_table(manifest).to_pylist()}


def test_raw_and_jpeg_of_one_shot_are_one_capture(photos: Path, ws: Workspace) -> None:
    (photos / "day").mkdir()
    (photos / "IMG_1.DNG").write_bytes(dng())
    (photos / "img_1.jpg").write_bytes(photo(seed=1))
    (photos / "IMG_2.JPG").write_bytes(photo(seed=2))
    (photos / "IMG_2.HEIC").write_bytes(photo("HEIF", seed=3))
    (photos / "IMG_3.jpg").write_bytes(photo(seed=4))
    (photos / "IMG_3.png").write_bytes(photo("PNG", seed=5))
    (photos / "day" / "IMG_1.jpg").write_bytes(photo(seed=6))
    manifest, rows = rows_of(photos, ws)
    assert (manifest.assets, manifest.rejected) == (7, 0)
    captures = {name: row["capture"] for name, row in rows.items()}
    assert captures["IMG_1.DNG"] == captures["img_1.jpg"] == f"{photos}/IMG_1"
    assert captures["IMG_2.JPG"] == captures["IMG_2.HEIC"] == f"{photos}/IMG_2"
    assert captures["IMG_3.jpg"] is captures["IMG_3.png"] is captures["day/IMG_1.jpg"] is None


def test_a_partner_that_comes_later_is_linked_without_reading_the_first_again(photos: Path, ws: Workspace) -> None:
    (photos / "a.jpg").write_bytes(photo(seed=1))
    _, rows = rows_of(photos, ws)
    assert rows["a.jpg"]["capture"] is None
    (photos / "a.dng").write_bytes(dng())
    before = ws.tally["ingest.objects_read"]
    manifest, rows = rows_of(photos, ws)
    assert rows["a.jpg"]["capture"] == rows["a.dng"]["capture"] == f"{photos}/a"
    assert ws.tally["ingest.objects_read"] == before + 1 and manifest.unchanged == 1
    (photos / "a.dng").unlink()
    _, rows = rows_of(photos, ws)
    assert rows["a.jpg"]["capture"] is None


def test_pictures_in_quick_succession_are_a_burst(photos: Path, ws: Workspace) -> None:
    times = {"a": 0.0, "b": 0.4, "c": 1.3, "d": 5.0, "e": 60.0, "f": 60.9}
    for seed, (name, seconds) in enumerate(times.items()):
        (photos / f"{name}.jpg").write_bytes(photo(seed=seed, tags=exif(NOON + timedelta(seconds=seconds))))
    (photos / "other.jpg").write_bytes(photo(seed=20, tags=exif(NOON, camera="Camera 2")))
    (photos / "none.jpg").write_bytes(photo(seed=21))
    (photos / "near").mkdir()
    (photos / "near" / "a.jpg").write_bytes(photo(seed=22, tags=exif(NOON)))
    _, rows = rows_of(photos, ws)
    bursts = {name.removesuffix(".jpg"): row["burst"] for name, row in rows.items()}
    assert bursts["a"] == bursts["b"] == bursts["c"] == f"{photos}/a.jpg" and bursts["e"] == bursts["f"] == f"{photos}/e.jpg"
    assert {bursts[name] for name in ("d", "other", "none", "near/a")} == {None}
    assert rows["b.jpg"]["taken_at"] == NOON + timedelta(seconds=0.4)
    with opened(ws.config.local_folder, **{"check": {}}) as again:
        other = again.config.replace(ingest={"burst_gap_s": 0.5, "decoders": 1})
    with open_workspace(other) as again:
        manifest, rows = rows_of(photos, again)
        assert [rows[f"{name}.jpg"]["burst"] for name in "abcef"] == [f"{photos}/a.jpg"] * 2 + [None] * 3
        assert manifest.unchanged == len(rows)  # another gap reads nothing


def test_a_raw_and_jpeg_pair_is_no_burst(photos: Path, ws: Workspace) -> None:
    (photos / "a.dng").write_bytes(dng(taken="2026:05:01 12:00:00"))
    (photos / "a.jpg").write_bytes(photo(tags=exif(NOON)))
    _, rows = rows_of(photos, ws)
    assert {row["burst"] for row in rows.values()} == {None}


def test_sidecars_say_something_of_their_picture(photos: Path, ws: Workspace) -> None:
    for seed, name in enumerate(("a.jpg", "b.jpg", "b.png", "c.jpg")):
        (photos / name).write_bytes(photo("PNG" if name.endswith("png") else "JPEG", seed=seed))
    (photos / "a.XMP").write_text(XMP.format(rating=4))
    (photos / "a.jpg.json").write_text(json.dumps({"label": "cat", "tags": ["x", "y"], "none": None, "geoData": {"latitude": 1}, "rating": 5}))
    (photos / "b.jpg.xmp").write_text(XMP.format(rating=-1))
    (photos / "b.json").write_text('{"label": "dog"}')
    (photos / "lonely.xmp").write_text(XMP.format(rating=1))
    (photos / "broken.json").write_text('{"label": ')
    (photos / "annotations.json").write_text("[1, 2]")
    manifest, rows = rows_of(photos, ws)
    said = {name: json.loads(str(row["attributes"])) for name, row in rows.items() if row["attributes"]}
    assert said == {
        "a.jpg": {"rating": 5, "label": "cat", "tags": "x, y"},
        "b.jpg": {"rating": -1, "tags": "night, cat", "label": "dog"},
        "b.png": {"label": "dog"},
    }
    assert (manifest.rows, manifest.assets, manifest.sidecars, manifest.rejections) == (11, 4, 4, {"unsupported_format": 3})
    assert rows["lonely.xmp"]["detail"] == "a sidecar of no picture here"
    assert str(rows["broken.json"]["detail"]).startswith("no picture, and no sidecar")


def test_a_sidecar_is_read_alone_when_it_alone_changes_and_goes_with_its_picture(photos: Path, ws: Workspace) -> None:
    (photos / "a.jpg").write_bytes(photo())
    (photos / "a.xmp").write_text(XMP.format(rating=1))
    rows_of(photos, ws)
    (photos / "a.xmp").write_text(XMP.format(rating=22))
    before = ws.tally["ingest.objects_read"]
    manifest, rows = rows_of(photos, ws)
    assert json.loads(str(rows["a.jpg"]["attributes"]))["rating"] == 22 and ws.tally["ingest.objects_read"] == before + 1
    (photos / "a.jpg").unlink()
    manifest, rows = rows_of(photos, ws)
    assert manifest.rejections == {"unsupported_format": 1} and manifest.sidecars == 0
    (photos / "a.jpg").write_bytes(photo())
    manifest, rows = rows_of(photos, ws)
    assert manifest.rejections == {} and manifest.sidecars == 1 and rows["a.xmp"]["reason"] is None
    (photos / "a.xmp").unlink()
    manifest, rows = rows_of(photos, ws)
    assert rows["a.jpg"]["attributes"] is None


def test_sidecars_inside_an_archive(photos: Path, ws: Workspace) -> None:
    with zipfile.ZipFile(photos / "all.zip", "w") as archive:
        archive.writestr("x/a.jpg", photo())
        archive.writestr("x/a.json", '{"label": "cat"}')
        archive.writestr("y/a.jpg", photo(seed=1))
    _, rows = rows_of(photos, ws)
    assert [row["attributes"] for row in rows.values() if row["asset_id"]] == ['{"label":"cat"}', None]


def test_names_with_double_colons_are_names(photos: Path, ws: Workspace) -> None:
    (photos / "b::c").mkdir()
    for seed, name in enumerate(("x::y.jpg", "b::c/z#1.jpg", "p.json::q.jpg")):
        (photos / name).write_bytes(photo(seed=seed))
    (photos / "x::y.json").write_text('{"label": "cat"}')
    with zipfile.ZipFile(photos / "all::of::it.zip", "w") as archive:
        archive.writestr("k::l.jpg", photo(seed=7))
        archive.writestr("k::l.xmp", XMP.format(rating=3))
    manifest, rows = rows_of(photos, ws)
    assert (manifest.assets, manifest.sidecars, manifest.rejections) == (4, 2, {})
    inside = f"zip://k::l.jpg::{photos}/all::of::it.zip"
    assert json.loads(str(rows["x::y.jpg"]["attributes"])) == {"label": "cat"} and json.loads(str(rows[inside]["attributes"]))["rating"] == 3
    assert [rows[name]["folder"] for name in ("x::y.jpg", "b::c/z#1.jpg", inside)] == ["photos", "b::c", "all::of::it"]


def test_a_list_says_more_than_a_sidecar(photos: Path, ws: Workspace) -> None:
    (photos / "a.jpg").write_bytes(photo())
    (photos / "a.json").write_text('{"label": "cat", "night": true}')
    (photos / "list.csv").write_text("uri,label\na.jpg,dog\na.json,\n")
    manifest = ingest([str(photos / "list.csv")], ws)
    said = [row["attributes"] for row in ws.store.read_table(manifest).to_pylist() if row["asset_id"]]
    assert [json.loads(text) for text in said] == [{"label": "dog", "night": True}]


def test_a_place_is_kept_only_when_asked_for(photos: Path, tmp_path: Path) -> None:
    (photos / "a.jpg").write_bytes(photo(tags=exif(NOON, place=(52.5, 13.4))))
    (photos / "a.json").write_text('{"GPSPosition": "52.5 13.4", "label": "cat"}')
    for keep, latitude, names in ((False, None, {"label"}), (True, 52.5, {"label", "GPSPosition"}), (False, None, {"label"})):
        with opened(tmp_path / "root", privacy={"keep_gps": keep}) as ws:
            _, rows = rows_of(photos, ws)
            assert rows["a.jpg"]["gps_latitude_deg"] == latitude
            assert set(json.loads(str(rows["a.jpg"]["attributes"]))) == names


def test_a_sidecar_tells_no_place_at_any_depth(photos: Path, tmp_path: Path) -> None:
    (photos / "a.jpg").write_bytes(photo())
    told = {"EXIF": {"GPSLatitude": 52.5, "ISO": 400}, "lat": 52.5, "lon": 13.4, "City": "Berlin"}
    told |= {"faces": [{"geoPoint": [52.5, 13.4]}], "address": {"x": 1}}
    kept = {"label": "cat", "pigeon": True, "flat": 1, "capacity": 3, "faces_found": [{"name": "Ann", "location": "left"}]}
    (photos / "a.json").write_text(json.dumps(told | kept))
    with opened(tmp_path / "root") as ws:
        _, rows = rows_of(photos, ws)
        text = str(rows["a.jpg"]["attributes"]) + str(rows["a.json"]["sidecar"])
        assert "52.5" not in text and "Berlin" not in text and "13.4" not in text
        said = json.loads(str(rows["a.jpg"]["attributes"]))
        assert said == {"label": "cat", "pigeon": True, "flat": 1, "capacity": 3, "EXIF": '{"ISO": 400}', "faces_found": '[{"name": "Ann"}]'}
    with opened(tmp_path / "root", privacy={"keep_gps": True}) as ws:
        _, rows = rows_of(photos, ws)
        assert set(json.loads(str(rows["a.jpg"]["attributes"]))) == {*told, *kept}


def test_a_list_keeps_the_places_it_names_and_no_position(photos: Path, tmp_path: Path) -> None:
    (photos / "a.jpg").write_bytes(photo())
    (photos / "l.csv").write_text("path,city,location,lat,lon,gps_altitude\na.jpg,Berlin,camera 7,52.5,13.4,34\n")
    for keep, names in ((False, {"city", "location"}), (True, {"city", "location", "lat", "lon", "gps_altitude"}), (False, {"city", "location"})):
        with opened(tmp_path / "root", privacy={"keep_gps": keep}) as ws:
            (row,) = ws.store.read_table(ingest([str(photos / "l.csv")], ws)).to_pylist()
            assert set(json.loads(str(row["attributes"]))) == names


def test_names_that_differ_in_case_are_one_column(photos: Path, ws: Workspace) -> None:
    for seed in range(4):
        (photos / f"{seed}.jpg").write_bytes(photo(seed=seed))
    (photos / "0.json").write_text('{"Label": "x", "FORMAT": "slide", "Zoom": 2}')
    (photos / "1.json").write_text('{"label": "y", "format": "print", "zoom": 3}')
    (photos / "2.json").write_text('{"LABEL": "y", "discovery_row": 7}')
    (photos / "3.json").write_text('{"Label": "y"}')
    (photos / "3.jpg.json").write_text('{"label": "x"}')  # of the picture alone, and so the last word
    run_pipeline([str(photos)], ws)
    table = asset_table(current_snapshot(ws), ws, [])
    names = [Path(uri).name for uri in table["source_uri"].to_pylist()]
    said = {name: dict(zip(names, table[name].to_pylist(), strict=True)) for name in ("label", "said_format", "zoom", "format")}
    assert said["label"] == {"0.jpg": "x", "1.jpg": "y", "2.jpg": "y", "3.jpg": "x"}
    assert said["said_format"] == {"0.jpg": "slide", "1.jpg": "print", "2.jpg": None, "3.jpg": None}
    assert said["zoom"] == {"0.jpg": 2.0, "1.jpg": 3.0, "2.jpg": None, "3.jpg": None} and set(said["format"].values()) == {"JPEG"}
    for where, count in (("label = 'y'", 2), ("Label = 'x'", 2), ("said_format = 'print'", 1), ("discovery_row = 7", 1)):
        assert curate(parse_spec(f"name: some\nbudget: 9\nduplicates: keep\nwhere: {where}\n"), ws).assets == count, where
    assert curate(parse_spec("name: quota\nbudget: 9\nduplicates: keep\nquotas: [{by: Label, max: 1}]\n"), ws).assets == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"label": "\\ud800x", "tags": ["\\udfff"], "k\\ud800": 1}', {"label": "\ufffdx", "tags": "\ufffd", "k\ufffd": 1}),
        ('{"a": NaN, "b": -Infinity, "c": [1e400, 1], "d": 1e308}', {"c": "[null, 1]", "d": 1e308}),
        ('{"a": ' + "9" * 30 + ', "b": 9007199254740992}', {"a": "9" * 30, "b": 2**53}),
        ('{"a": "' + "x" * 100_000 + '", "' + "k" * 201 + '": 1}', {"a": "x" * 100_000}),
        ('{"a": "x\\u0000y"}', {"a": "x\0y"}),
    ],
)
def test_an_odd_value_costs_at_most_itself(photos: Path, ws: Workspace, text: str, said: dict[str, object]) -> None:
    (photos / "a.jpg").write_bytes(photo())
    (photos / "a.json").write_text(text)
    manifest, rows = rows_of(photos, ws)
    assert manifest.rejected == 0 and json.loads(str(rows["a.jpg"]["attributes"])) == said


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        (json.dumps({f"k{number}": 1 for number in range(1001)}), "1,001 keys; at most 1,000 are expected"),
    ],
)
def test_a_file_of_another_kind_costs_itself(photos: Path, ws: Workspace, text: str, detail: str) -> None:
    (photos / "a.jpg").write_bytes(photo())
    (photos / "a.json").write_text(text)
    manifest, rows = rows_of(photos, ws)
    assert manifest.assets == 1 and detail in str(rows["a.json"]["detail"])


def test_what_was_said_is_there_for_filters_and_splits(photos: Path, ws: Workspace) -> None:
    for seed in range(24):
        taken = NOON + timedelta(hours=seed // 6, seconds=0.5 * (seed % 6))
        (photos / f"{seed:02}.jpg").write_bytes(photo(seed=seed, tags=exif(taken, camera=f"Camera {seed // 6 % 2}")))
    (photos / "00.xmp").write_text(XMP.format(rating=5))
    run_pipeline([str(photos)], ws)
    table = asset_table(current_snapshot(ws), ws, [])
    assert table.schema.field("taken_at").type == "timestamp[ms]" and table["iso"].to_pylist() == [400] * 24
    version = curate(parse_spec("name: late\nbudget: 9\nwhere: taken_at >= '2026-05-01 15:00:00' AND f_number < 3 AND camera_model = 'Camera 1'\n"), ws)
    assert version.assets == 6
    rated = curate(parse_spec("name: rated\nbudget: 9\nwhere: rating >= 4 AND tags LIKE '%night%'\n"), ws)
    assert rated.assets == 1
    every = curate(parse_spec("name: every\nbudget: 24\nsplits: {train: 0.5, test: 0.5}\n"), ws)
    split = {Path(row["source_uri"]).stem: row["split"] for row in ws.store.read_table(every).to_pylist()}
    bursts = [{split[f"{seed:02}"] for seed in range(24) if seed // 6 == hour} for hour in range(4)]
    assert [len(names) for names in bursts] == [1] * 4 and len(set().union(*bursts)) == 2
