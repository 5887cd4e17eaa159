"""What names of splits and labels, and values of columns, become in an export: told apart, or refused, and what readers make of them told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from discovery.adapters.exports import FORMATS
from discovery.adapters.exports.listing import members_csv, read_members
from discovery.addressing import sha256_hex
from discovery.core.boxes import LabelledBox, read_boxes
from discovery.core.croissant import CONTEXT, Described, _identifier, croissant
from discovery.core.export_plan import Example, ExportOptions, ExportPlan, Made, classes_of, order_examples
from discovery.errors import ConfigError
from discovery.stages import export_rows
from discovery.stages.asset_table import with_attributes
from discovery.stages.export import _check_names, plan_export
from discovery.stages.export_notes import note_of
from discovery.stages.export_rows import members_of
from discovery.stages.training_set import training_set
from discovery.stages.versions import find_version
from discovery.workspace import Workspace


def picture(number: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, 80, 160)).save(sink, "PNG")
    return sink.getvalue()


def plan_of(name: str, members: Sequence[tuple[str, str | None]], *, kinds: Sequence[str] = (), **options: Any) -> ExportPlan:
    """A plan of pictures of one colour each, by split and label."""
    examples = [
        Example(sha256_hex(picture(number)), split, label, kinds[number] if kinds else "PNG", len(picture(number)), 8, 6, f"/pictures/{number}.png", "drawn")
        for number, (split, label) in enumerate(members)
    ]
    splits = tuple(dict.fromkeys(split for split, _ in members))
    return ExportPlan(
        "photos", 1, "d" * 64, "2026-01-01T00:00:00+00:00", "{}", name, ExportOptions(**options), "label", splits, classes_of(examples), order_examples(examples, splits)
    )


def bytes_of(plan: ExportPlan) -> dict[str, bytes]:
    return {sha256_hex(picture(number)): picture(number) for number in range(len(plan.examples))}


def write_folders(plan: ExportPlan, out: Path) -> Path:
    place = FORMATS[plan.format].place
    assert place is not None
    for example in plan.examples:
        path = out / place(example, plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(plan)[example.asset_id])
    return out


def described(plan: ExportPlan) -> dict[str, bytes]:
    made = [Made(f"{number}", "0" * 64, 10) for number in range(len(plan.examples))]
    return {path: data if isinstance(data, bytes) else b"".join(data) for path, data in FORMATS[plan.format].describe(plan, made)}


# splits


@pytest.mark.parametrize(("name", "splits"), [("parquet", ("a-b", "a_b")), ("parquet", ("all", "all_")), ("webdataset", ("Train", "train")), ("imagefolder", ("x", "Classes.json"))])
def test_splits_that_would_have_one_name_are_refused_with_both_told(name: str, splits: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"split '{splits[0] if splits[0] != 'x' else splits[1]}' and .* would have one name there.*Give the split another name"):
        _check_names(plan_of(name, [(splits[0], "cat"), (splits[1], "cat")]))
    _check_names(plan_of("list", [(splits[0], "cat"), (splits[1], "cat")]))


def test_names_that_one_format_flattens_another_keeps() -> None:
    _check_names(plan_of("webdataset", [("a-b", "cat"), ("a_b", "cat")]))


def test_a_version_with_such_splits_is_refused_before_a_folder_is_made(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from discovery.stages import export as stage

    def renamed(*arguments: Any, **options: Any) -> export_rows.Members:
        found = members_of(*arguments, **options)
        return replace(found, splits=("t_t", "t-t"), examples=tuple(replace(one, split={"train": "t_t", "test": "t-t"}[one.split]) for one in found.examples))

    monkeypatch.setattr(stage, "members_of", renamed)
    with pytest.raises(ConfigError, match="split 't_t' and split 't-t' would have one name"):
        stage.export("photos@1", "parquet", str(tmp_path / "out"), ws, ExportOptions(shard_examples=4))
    assert not (tmp_path / "out").exists()


def test_datasets_reads_splits_named_all_or_in_letters_of_any_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    plan = plan_of("parquet", [("all", "cat"), ("été", "cat"), ("a-b", "dog"), ("学習", "dog")])
    _check_names(plan)
    form = FORMATS["parquet"]
    assert form.shard is not None and form.pack is not None
    (tmp_path / "out" / "data").mkdir(parents=True)
    for split in plan.splits:
        some = [plan.examples[place] for place in plan.of_split(split)]
        form.pack(tmp_path / "out" / form.shard(split, 0, 1), ((one, bytes_of(plan)[one.asset_id]) for one in some), plan)
    for path, data in described(plan).items():
        (tmp_path / "out" / path).write_bytes(data)
    datasets.disable_progress_bars()
    opened = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows["asset_id"][0] for split, rows in opened.items()} == {
        {"all": "all_", "a-b": "a_b"}.get(one.split, one.split): one.asset_id for one in plan.examples
    }


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_names_of_what_describes_an_export_are_told_without_making_it(name: str) -> None:
    plan = plan_of(name, [("train", "cat"), ("été 1", None)])
    assert list(FORMATS[name].names(plan)) == list(described(plan))


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.pack])
def test_a_shard_gives_back_the_pictures_that_were_packed(name: str, tmp_path: Path) -> None:
    plan, form = plan_of(name, [("train", "cat"), ("train", None), ("train", "dog")]), FORMATS[name]
    assert form.pack is not None and form.unpack is not None
    packed = [(one, bytes_of(plan)[one.asset_id]) for one in plan.examples]
    form.pack(tmp_path / "shard", packed, plan)
    assert list(form.unpack(tmp_path / "shard")) == [(one.asset_id, data) for one, data in packed]


def test_every_file_has_an_identifier_of_its_own_in_croissant() -> None:
    import mlcroissant

    paths = ["a b", "a_b", "a-b", "a~20b", "a%20b", "ä", "Ä", "学習-000000.tar", "train/labels.json"]
    assert len({_identifier(path) for path in paths}) == len(paths)
    assert _identifier("annotations/instances_train.json") == "annotations/instances_train.json"
    files = [Described(path, sha256_hex(path.encode()), 1, "application/json") for path in paths]
    table = Described("members.csv", "0" * 64, 1, "text/csv")
    told = croissant(
        name="photos", number=1, digest="d" * 64, description="Photos.", created_at="2026-01-01", table=table, columns={"asset_id": "text"}, files=files,
        license_url="https://example.org/licence", cite_as="photos@1", url="https://example.org/photos",
    )  # fmt: skip
    context = json.dumps(CONTEXT)
    opened = mlcroissant.Dataset(jsonld=told)
    assert json.dumps(CONTEXT) == context  # mlcroissant writes into what it is given
    assert sorted(one.content_url for one in opened.metadata.file_objects) == sorted([*paths, "members.csv"])


# classes of ImageFolder


def image_folder(folder: Path) -> Any:
    from discovery.adapters.torchvision_compat import import_timm

    import_timm()
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(folder))


def test_numbers_that_torchvision_gives_otherwise_are_told_and_the_page_mends_them(tmp_path: Path) -> None:
    plan = plan_of("imagefolder", [("train", str(number)) for number in range(12)])
    opened = image_folder(write_folders(plan, tmp_path) / "train")
    assert opened.class_to_idx["10"] == 2 and plan.index["10"] == 10
    assert "train: 10 is 2, not 10" in note_of(plan, FORMATS["imagefolder"])
    (tmp_path / "classes.json").write_bytes(described(plan)["classes.json"])
    page = (Path(__file__).parents[2] / "docs/howto/export.md").read_text()
    code = page.split("<!-- example: imagefolder -->\n```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code.replace('"photos-3', f'"{tmp_path}'), found)
    labels = {one.asset_id: plan.class_of(one) for one in plan.examples}
    assert {Path(path).stem: found["train"][place][1] for place, (path, _) in enumerate(opened.samples)} == labels


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["Zebra", "cat"], ""), (["cat", "dog"], ""), (["a-b", "a/b"], "a%2Fb is 0, not 1"), (["cat", None], "_unlabelled is class 0"), (["9", "10"], "10 is 0, not 1"),
    ],
)  # fmt: skip
def test_a_note_says_where_folders_sort_otherwise_than_classes(labels: list[str | None], note: str, tmp_path: Path) -> None:
    plan = plan_of("imagefolder", [("train", label) for label in labels])
    opened = image_folder(write_folders(plan, tmp_path) / "train")
    said = note_of(plan, FORMATS["imagefolder"])
    told = json.loads(described(plan)["classes.json"])
    is_same = [told[folder] for folder in opened.classes] == list(plan.classes)
    assert is_same == (said == "") and (f"train: {note}" in said) == bool(note)


def test_a_split_that_lacks_a_class_is_told_and_one_that_is_whole_is_not() -> None:
    said = note_of(plan_of("imagefolder", [("train", "cat"), ("train", "dog"), ("test", "cat"), ("val", "dog")]), FORMATS["imagefolder"])
    assert "test: only 1 of 2 classes; val: dog is 0, not 1." in said and "train: " not in said


def test_a_folder_in_which_torchvision_reads_nothing_is_told(tmp_path: Path) -> None:
    plan = plan_of("imagefolder", [("train", "cat"), ("train", "dog"), ("train", "dog")], kinds=["HEIC", "PNG", "CR2"])
    with pytest.raises(FileNotFoundError, match="cat"):
        image_folder(write_folders(plan, tmp_path) / "train")
    assert "ends with an error at folders of which it reads no picture: train/cat." in note_of(plan, FORMATS["imagefolder"])
    assert note_of(replace(plan, options=ExportOptions(form="jpeg")), FORMATS["imagefolder"]) == ""


def test_labels_that_differ_by_case_alone_are_told() -> None:
    members = [("train", "Cat"), ("train", "cat"), ("train", "été")]
    assert "The folders Cat and cat become one on disks that ignore case" in note_of(plan_of("imagefolder", members), FORMATS["imagefolder"])
    assert note_of(plan_of("coco", members), FORMATS["coco"]) == ""


# rows


def test_a_label_with_any_character_comes_back_from_the_rows() -> None:
    labels = ["a\rb", "a\nb", "a\r\nb", 'say "x"', "a,b", " a", "", "é", "'"]
    plan = plan_of("list", [("train", label) for label in labels])
    made = [Made(f"train/{number}.png", "0" * 64, number) for number in range(len(labels))]
    data = members_csv(plan, made)
    assert [row["label"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))] == [one.label for one in plan.examples]
    assert read_members(data, plan) == made


def test_rows_without_odd_characters_are_as_pythons_csv_writes_them() -> None:
    plan = plan_of("list", [("train", "cat"), ("test", None), ("test", 'the "x", and y')])
    made = [Made("", "", number) for number in range(3)]
    read = list(csv.reader(io.StringIO(members_csv(plan, made).decode(), newline="")))
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(read)
    assert members_csv(plan, made) == sink.getvalue().encode()


@pytest.mark.parametrize("cut", [lambda data: data[:40], lambda data: data.replace(b"cat", b"c\rt"), lambda data: b"", lambda data: b"\xff" + data, lambda data: data + b'"'])
def test_rows_that_are_not_those_of_the_plan_are_refused(cut: Any) -> None:
    plan = plan_of("list", [("train", "cat"), ("test", "dog")])
    with pytest.raises(ValueError, match=r"members\.csv|utf-8"):
        read_members(cut(members_csv(plan, [Made("", "", 1)] * 2)), plan)


def test_annotations_are_written_in_parts_that_are_one_json_and_tell_the_licence() -> None:
    plan = plan_of("coco", [("train", "cat"), ("train", None), ("test", "dog")], license_url="https://example.org/licence")
    boxed = replace(plan.examples[1], boxes=(LabelledBox(1, 2, 3, 4, "eye"), LabelledBox(0, 0, 1, 1)))
    plan = replace(plan, examples=(plan.examples[0], boxed, plan.examples[2]))
    texts = described(plan)
    told = {path: json.loads(text) for path, text in texts.items()}
    assert {path: json.dumps(one).encode() for path, one in told.items()} == texts
    train, test = told["annotations/instances_train.json"], told["annotations/instances_test.json"]
    labels = [one.label for one in plan.examples]
    assert sum(label is not None for label in labels) == 2
    assert [one["id"] for one in train["images"] + test["images"]] == [1, 2, 3]
    assert [one["id"] for one in train["annotations"] + test["annotations"]] == list(range(1, len(train["annotations"]) + len(test["annotations"]) + 1))
    assert train["licenses"] == [{"id": 0, "name": "https://example.org/licence", "url": "https://example.org/licence"}]


# columns


@pytest.mark.parametrize("text", ['{"x": 1}', "[1, 2, 3]", "[[1, 2, 0, 4]]", "many", '[{"bbox": "no"}]', "[[1, 2, 3, NaN]]", "7", '"1234"', "[null]", "A12"])
def test_a_box_that_cannot_be_read_is_none_and_counted(text: str) -> None:
    assert read_boxes(text) == ((), 1)


def with_column(name: str, values: Sequence[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the asset table other values, one after the other."""
    assets_of = export_rows.assets_of

    def changed(*arguments: Any) -> pa.Table:
        table = assets_of(*arguments)
        table = table.drop_columns([one for one in (name, "boxes") if one in table.column_names])
        return table.append_column(name, pa.array([values[place % len(values)] for place in range(len(table))], pa.string()))

    monkeypatch.setattr(export_rows, "assets_of", changed)


def test_a_column_named_box_that_holds_no_boxes_stops_nothing(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with_column("box", ["A12", "B7", None], monkeypatch)
    for name in FORMATS:
        plan = plan_export("photos@1", name, ws, ExportOptions())
        assert not any(one.boxes for one in plan.examples)
        assert ("The column 'box' holds no box that can be read" in note_of(plan, FORMATS[name])) == (name in ("coco", "webdataset"))
    assert len(training_set("photos@1", None, "", ws).ids) == len(plan.examples)


def test_boxes_that_cannot_be_read_are_left_out_and_told(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with_column("bbox", ["[1, 2, 3, 4]", "[[1, 2, 0, 4], [5, 6, 7, 8]]", None], monkeypatch)
    plan = plan_export("photos@1", "coco", ws, ExportOptions())
    assert {one.boxes for one in plan.examples} == {(), (LabelledBox(1, 2, 3, 4),), (LabelledBox(5, 6, 7, 8),)}
    unread = sum(one.boxes == (LabelledBox(5, 6, 7, 8),) for one in plan.examples)
    assert f"{unread} boxes of the column 'bbox' cannot be read and are left out, such as '[[1, 2, 0, 4]" in note_of(plan, FORMATS["coco"])


def test_labels_that_are_text_stay_as_they_are(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with_column("label", ["1", "1.0", "n/a"], monkeypatch)
    assert classes_of(members_of(find_version("photos@1", ws), "", ws).examples) == ("1", "1.0", "n/a")


@pytest.mark.parametrize(
    ("values", "is_number"),
    [
        (["1.1", "1.10", "2.0"], False), (["1", "1.0"], False), (["1.10", "2.0"], False), (["-0", "0"], False), (["1", "2"], True), (["0.5", "12", "3.25"], True), (["0.123", "1.5e-10", "0.5"], True),
        (["0.50", "0.25", "1.00"], True), (["1.0", "2.5"], True), (["1e-05", "0.5"], True), (["1", " 1"], True), ([1, "1"], True), (["1.0", "0.25"], True),
    ],
)  # fmt: skip
def test_text_becomes_numbers_only_where_no_two_become_one(values: list[Any], is_number: bool) -> None:
    table = with_attributes(pa.table({"asset_id": ["a"] * len(values)}), [json.dumps({"release": value}) for value in values])
    assert pa.types.is_floating(table["release"].type) == is_number
    assert is_number or table["release"].to_pylist() == values
