"""Every format is opened by the library it is for, and says what the version says."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from discovery.adapters.exports import FORMATS
from discovery.cli import main
from discovery.core.export_plan import Example, ExportOptions, classes_of
from discovery.spec import parse_spec
from discovery.stages.export import export, plan_export
from discovery.stages.export_rows import _facts
from discovery.workspace import Workspace

AS_JPEG = ExportOptions(form="jpeg")


def plan_examples(ws: Workspace) -> dict[str, Example]:
    return {one.asset_id: one for one in plan_export("photos@1", "list", ws, ExportOptions()).examples}


def listed(out: Path) -> list[dict[str, str]]:
    with open(out / "members.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_version_has_what_the_tests_are_about(ws: Workspace) -> None:
    examples = plan_examples(ws).values()
    assert len(examples) >= 27  # 24 parts, the turned one, the HEIC and a frame at least
    assert {one.format for one in examples} == {"JPEG", "PNG", "WEBP", "HEIC"} and sum(one.is_frame for one in examples) >= 1
    assert {one.label for one in examples} == {"flower", "chien/chat", "Ärzte 🩺", None, "town", "film"}
    assert {one.split for one in examples} == {"train", "test"}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_export_says_what_it_holds_and_sha256sum_agrees(name: str, ws: Workspace, tmp_path: Path) -> None:
    done = export("photos@1", name, str(tmp_path / "out"), ws)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert done.files == len(files) and done.bytes == sum(path.stat().st_size for path in files)
    assert (done.resumed, done.replaced, done.version, done.label) == (0, 0, "photos@1", "label")
    told = json.loads((tmp_path / "out" / "discovery-export.json").read_text())
    assert (told["version"], told["digest"], told["format"]) == ("photos@1", done.digest, name)
    for one in told["files"]:
        data = (tmp_path / "out" / one["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["bytes"], one["sha256"])
    assert {one["path"] for one in told["files"]} == {str(path.relative_to(tmp_path / "out")) for path in files} - {"discovery-export.json"}
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(": OK") == len(files) - 2  # all but itself and what says that the export is complete
    assert parse_spec((tmp_path / "out" / "spec.yaml").read_text()).name == "photos"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_croissant_metadata_is_valid_and_its_records_are_the_members(name: str, ws: Workspace, tmp_path: Path) -> None:
    import mlcroissant

    done = export("photos@1", name, str(tmp_path), ws, ExportOptions(license_url="https://creativecommons.org/publicdomain/zero/1.0/"))
    told = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))  # raises where anything is an error
    assert set(told.metadata.issues.warnings) == set()
    assert told.metadata.name == "photos" and told.metadata.version == f"1.0.0+{done.digest}"
    records = list(told.records("members-table"))
    examples = plan_examples(ws)
    assert {one["members/asset_id"].decode() for one in records} == set(examples)
    for one in records:
        example = examples[one["members/asset_id"].decode()]
        label = one["members/label"]
        assert (one["members/split"].decode(), label.decode() if isinstance(label, bytes) else None) == (example.split, example.label)
    sums = {file.name or file.id: file.sha256 for file in told.metadata.file_objects}
    assert sums["members"] == hashlib.sha256((tmp_path / "members.csv").read_bytes()).hexdigest()
    assert {one["splits/name"] for one in told.records("splits")} == {"train", "test"}


def test_image_folder_is_read_by_torchvision_and_its_labels_are_those_of_the_version(ws: Workspace, tmp_path: Path) -> None:
    from discovery.adapters.torchvision_compat import import_timm

    import_timm()
    from torchvision.datasets import ImageFolder

    done = export("photos@1", "imagefolder", str(tmp_path), ws, AS_JPEG)
    labels = json.loads((tmp_path / "classes.json").read_text())
    examples = plan_examples(ws)
    found = {}
    for split in ("train", "test"):
        opened = ImageFolder(str(tmp_path / split))
        for path, number in opened.samples:
            found[Path(path).stem] = (split, labels[opened.classes[number]])
        picture, _ = opened[0]
        assert picture.mode == "RGB"
    assert found == {one.asset_id: (one.split, one.label) for one in examples.values()}
    assert done.unlabelled == 6 and set(labels) == {"Ärzte 🩺", "chien%2Fchat", "flower", "film", "town", "_unlabelled"}


def test_originals_are_exported_to_the_byte_and_what_torchvision_leaves_out_is_told(ws: Workspace, tmp_path: Path) -> None:
    done = export("photos@1", "imagefolder", str(tmp_path), ws)
    examples = plan_examples(ws)
    for row in listed(tmp_path):
        data = (tmp_path / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        if not examples[row["asset_id"]].is_frame:
            assert row["sha256"] == row["asset_id"]
    suffixes = Counter(Path(row["file"]).suffix for row in listed(tmp_path))
    assert suffixes[".heic"] == 1 and ".mp4" not in suffixes  # frames are JPEG
    assert "torchvision's ImageFolder leaves them out: 1 HEIC." in done.note


def test_as_jpeg_turns_upright_and_keeps_what_is_upright_jpeg_already(ws: Workspace, tmp_path: Path) -> None:
    export("photos@1", "coco", str(tmp_path), ws, AS_JPEG)
    examples = plan_examples(ws)
    kept = 0
    for row in listed(tmp_path):
        example = examples[row["asset_id"]]
        with Image.open(tmp_path / row["file"]) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (example.width_px, example.height_px))
            assert picture.getexif().get(0x0112, 1) == 1
        kept += row["sha256"] == row["asset_id"]
        if example.source_uri.endswith("turned.jpg"):
            assert (example.width_px, example.height_px) == (160, 240) and row["sha256"] != row["asset_id"]
    assert kept == sum(one.format == "JPEG" and not one.is_frame and not one.source_uri.endswith("turned.jpg") for one in examples.values()) > 5


def test_webdataset_shards_are_read_by_webdataset(ws: Workspace, tmp_path: Path) -> None:
    import webdataset

    done = export("photos@1", "webdataset", str(tmp_path), ws, ExportOptions(form="jpeg", shard_examples=5))
    examples, classes = plan_examples(ws), plan_export("photos@1", "webdataset", ws, AS_JPEG).classes
    found = {}
    for split in ("train", "test"):
        shards = sorted(str(path) for path in tmp_path.glob(f"{split}-*.tar"))
        assert len(shards) == -(-done.splits[split] // 5)
        for picture, number, told, key in webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "cls", "json", "__key__"):
            example = examples[key]
            assert picture.size == (example.width_px, example.height_px) == (told["width_px"], told["height_px"])
            assert told["label"] == example.label == (None if number == -1 else classes[number])
            assert told["split"] == split
            found[key] = split
    assert found == {one.asset_id: one.split for one in examples.values()}


def test_shards_end_before_they_are_too_large(ws: Workspace, tmp_path: Path) -> None:
    export("photos@1", "webdataset", str(tmp_path), ws, ExportOptions(shard_bytes=40_000))
    sizes = Counter[str]()
    most = Counter[str]()
    for row in listed(tmp_path):
        sizes[row["file"]] += int(row["size_bytes"])
        most[row["file"]] += 1
    assert len(sizes) > 4 and all(size <= 40_000 or most[name] == 1 for name, size in sizes.items())


def test_coco_is_read_by_pycocotools(ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    export("photos@1", "coco", str(tmp_path), ws, AS_JPEG)
    examples, seen = plan_examples(ws), set()
    image_ids: set[int] = set()
    for split in ("train", "test"):
        opened = COCO(str(tmp_path / f"annotations/instances_{split}.json"))
        names = {one["id"]: one["name"] for one in opened.loadCats(opened.getCatIds())}
        assert set(names.values()) == {"Ärzte 🩺", "chien/chat", "flower", "film", "town", "petal"}
        for image in opened.loadImgs(opened.getImgIds()):
            example = examples[image["asset_id"]]
            with Image.open(tmp_path / split / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
            annotations = opened.loadAnns(opened.getAnnIds(imgIds=[image["id"]]))
            whole = [one for one in annotations if one["image_level"]]
            assert [names[one["category_id"]] for one in whole] == ([example.label] if example.label else [])
            for one in whole:
                assert one["bbox"] == [0, 0, image["width"], image["height"]] and opened.annToMask(one).all()
            boxes = [(names[one["category_id"]], one["bbox"]) for one in annotations if not one["image_level"]]
            assert boxes == ([("petal", [10, 20, 30, 40])] if example.source_uri.endswith("part 01.jpg") else [])
            seen.add(example.asset_id)
            assert image["id"] not in image_ids
            image_ids.add(image["id"])
    assert seen == set(examples)
    assert "index created" in capsys.readouterr().out


def test_parquet_is_read_by_datasets_with_pictures_and_class_labels(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    export("photos@1", "parquet", str(tmp_path / "out"), ws, ExportOptions(form="png", shard_examples=8))
    assert sorted(path.name for path in (tmp_path / "out/data").glob("test-*"))[0].startswith("test-00000-of-0000")
    datasets.disable_progress_bars()
    opened = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    examples = plan_examples(ws)
    assert set(opened) == {"train", "test"}
    assert isinstance(opened["train"].features["image"], datasets.Image)
    label = opened["train"].features["label"]
    assert isinstance(label, datasets.ClassLabel) and label.names == ["chien/chat", "film", "flower", "town", "Ärzte 🩺"]
    found = {}
    for split, rows in opened.items():
        for row in rows:
            example = examples[row["asset_id"]]
            assert row["image"].size == (example.width_px, example.height_px)
            assert (None if row["label"] is None else label.int2str(row["label"])) == example.label
            found[row["asset_id"]] = split
    assert found == {one.asset_id: one.split for one in examples.values()}


def test_fiftyone_is_laid_out_as_its_importer_reads_it(ws: Workspace, tmp_path: Path) -> None:
    """FiftyOneImageClassificationDatasetImporter: every file of data/ under its name without the suffix, `labels` by it, numbers of `classes`, null for none."""
    export("photos@1", "fiftyone", str(tmp_path), ws)
    found: dict[str, Any] = {}
    for split in ("train", "test"):
        told = json.loads((tmp_path / split / "labels.json").read_text())
        paths = {path.stem: path for path in (tmp_path / split / "data").iterdir()}
        assert set(told["labels"]) == set(paths)
        found |= {name: (split, None if target is None else told["classes"][target]) for name, target in told["labels"].items()}
    assert found == {one.asset_id: (one.split, one.label) for one in plan_examples(ws).values()}


def test_a_list_has_every_member_with_its_reason_and_no_picture(ws: Workspace, tmp_path: Path) -> None:
    export("photos@1", "list", str(tmp_path), ws)
    assert {path.name for path in tmp_path.iterdir()} == {"members.csv", "members.jsonl", "spec.yaml", "croissant.json", "SHA256SUMS", "discovery-export.json"}
    rows = [json.loads(line) for line in (tmp_path / "members.jsonl").read_text().splitlines()]
    assert [row["asset_id"] for row in rows] == [row["asset_id"] for row in listed(tmp_path)]
    examples = plan_examples(ws)
    for row in rows:
        example = examples[row["asset_id"]]
        assert (row["split"], row["label"], row["source_uri"], row["reason"]) == (example.split, example.label, example.source_uri, example.reason)
        assert row["sha256"] == ("" if example.is_frame else row["asset_id"]) and row["reason"]
    assert any("odd name #1 ü?" in row["source_uri"] for row in rows)


def test_another_column_can_hold_the_labels(ws: Workspace, tmp_path: Path) -> None:
    done = export("photos@1", "list", str(tmp_path), ws, ExportOptions(label="Kind"))
    assert (done.label, done.classes, done.unlabelled) == ("kind", 3, 0)
    assert {row["label"] for row in listed(tmp_path)} == {"kind 0", "kind 1", "kind 2"}


def test_a_picture_of_a_shard_is_the_original(ws: Workspace, tmp_path: Path) -> None:
    import tarfile

    export("photos@1", "webdataset", str(tmp_path), ws)
    examples = plan_examples(ws)
    originals = 0
    for shard in tmp_path.glob("*.tar"):
        with tarfile.open(shard) as tar:
            assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in tar} == {(0, 0, 0, "", 0o644)}
            for one in tar:
                name, suffix = one.name.split(".")
                if suffix not in ("cls", "json") and not examples[name].is_frame:
                    opened = tar.extractfile(one)
                    assert opened is not None and hashlib.sha256(opened.read()).hexdigest() == name
                    originals += 1
    assert originals == sum(not one.is_frame for one in examples.values())


def test_a_png_of_a_video_frame_is_the_frame(ws: Workspace, tmp_path: Path) -> None:
    export("photos@1", "coco", str(tmp_path), ws, ExportOptions(form="png"))
    examples = plan_examples(ws)
    for row in listed(tmp_path):
        if examples[row["asset_id"]].is_frame:
            with Image.open(tmp_path / row["file"]) as written, Image.open(io.BytesIO(ws.store.get_asset(row["asset_id"]))) as stored:
                assert written.format == "PNG" and written.tobytes() == stored.convert("RGB").tobytes()


def test_the_command_answers_with_files_bytes_and_out_and_fails_with_what_to_do(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    asked = ["export", "photos@1", "--out", out, "--root", str(store), "--json"]
    assert main([*asked, "--format", "webdataset", "--as", "jpeg", "--shard-pictures", "5", "--label", "kind", "--license", "https://example.org/licence"]) == 0
    told = json.loads(capsys.readouterr().out)
    files = [path for path in Path(out).rglob("*") if path.is_file()]
    assert (told["files"], told["bytes"], told["out"]) == (len(files), sum(path.stat().st_size for path in files), out)
    assert (told["label"], told["classes"], told["format"]) == ("kind", 3, "webdataset")
    assert json.loads((tmp_path / "out/croissant.json").read_text())["license"] == "https://example.org/licence"
    assert main([*asked, "--format", "webdataset"]) == 2
    assert "with other options or labels" in capsys.readouterr().err
    assert main([*asked, "--format", "yolo"]) == 2
    assert "There is no format 'yolo'" in capsys.readouterr().err


def test_labels_that_are_whole_numbers_are_written_and_ordered_as_such() -> None:
    columns = {name: pa.array(list(values)) for name, values in {"asset_id": "abcd", "format": "wxyz", "size_bytes": [1] * 4, "video_id": "abcd"}.items()}
    facts = _facts(pa.table({**columns, "label": pa.array([3.0, -1.0, 2.5, None])}), "label")
    assert [one["label"] for one in facts.values()] == ["3", "-1", "2.5", None]
    examples = [Example(str(number), "train", str(number), "JPEG", 1, 1, 1, "", "") for number in (10, 9, 100)]
    assert classes_of(examples) == ("9", "10", "100")
