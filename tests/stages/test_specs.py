"""Specs: what is refused, where, and with which next step; what a digest takes in; saved ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discovery.cli import main
from discovery.config import Config
from discovery.errors import InvalidInput, SpecError, UnknownRecord
from discovery.saved_names import known_names
from discovery.spec import Bounds, CollectionSpec, parse_bytes, parse_spec, stored_spec
from discovery.stages.saved_specs import save_spec, saved_spec, saved_specs
from discovery.workspace import open_workspace

BASE = "name: a\nbudget: 3\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nbudgte: 3\n", 'spec:2: unknown key budgte. Did you mean "budget"?'),
        ("name: a\nbudget: lots\n", "spec:2: budget: expected a number of assets, or bytes such as 20 GB or 512 MiB, found 'lots'."),
        ("name: a\nbudget: {asset: 3}\n", 'spec:2: unknown key budget.asset. Did you mean "assets"?'),
        ("name: a\n", "spec:1: budget is missing. Add `budget: …`."),
        (BASE + "mix:\n- {name: x, share: .7}\n- nome: y\n", 'spec:5: unknown key mix.1.nome. Did you mean "name"?'),
        (BASE + "mix:\n- {name: x, share: .7}\n- {name: y, share: .2}\n", "spec:3: mix: shares sum to 0.9; let them sum to 1, or give a part no share"),
        (BASE + "mix: [{name: x}, {name: x}]\n", "spec:3: mix: two parts are called x"),
        (BASE + "mix: [{name: x}, {name: y, select: {method: random}}]\n", "spec:3: mix: part y has no share and competes with other parts"),
        ("name: a\nbudget: 1 GB\nmix: [{name: x, share: 1}]\n", "spec:3: mix: shares are of a budget in assets"),
        (BASE + "select: {method: typcal}\n", 'Did you mean "typical"?'),
        (BASE + "select: {method: stratified}\n", "spec:3: select: `by` names the column of method stratified"),
        (BASE + "select: {equal: true}\n", "spec:3: select: `equal` is of method stratified"),
        (BASE + "select: {clusters: 3}\n", "spec:3: select: `clusters` is of method cluster_balanced"),
        (BASE + "quotas:\n- by: c\n  values: {cat: {mim: 3}}\n", 'spec:5: unknown key quotas.0.values.cat.mim. Did you mean "min"?'),
        (BASE + "quotas: [{by: c, min: 3, max: 2}]\n", "spec:3: quotas.0: min 3 is above max 2"),
        (BASE + "quotas:\n- {by: c, max: 2, values: {cat: {min: 3}}}\n", "spec:4: quotas.0: value 'cat': its own bound and the general one contradict each other"),
        (BASE + "quotas: [{by: c}, {by: C}]\n", "spec:3: quotas: 'c' and 'C' are one column; give it one quota"),
        (BASE + "quotas: [{by: video}, {by: video_id}]\n", "spec:3: quotas: 'video' and 'video_id' are one column"),
        (BASE + "where: a\nquotas: []\nwhere: b\n", "spec:5: the key where is given twice, in line 3 and in line 5. Keep one of them."),
        (BASE + "must_not_leak_into: [x@1]\nmust_not_leak_into: []\n", "spec:4: the key must_not_leak_into is given twice"),
        (BASE + "splits:\n  train: 1\n  keep_together: [folder]\n  keep_together: []\n", "spec:6: the key keep_together is given twice, in line 5 and in line 6"),
        (BASE + "quotas: [{by: c, values: {x: {max: 1, max: 2}}}]\n", "spec:3: the key max is given twice"),
        (BASE + "keep_together: [a]\nsplits: {train: 1, keep_together: [b]}\n", "spec:4: keep_together: stands under splits and beside it"),
        (BASE + "quotas:\n- {by: c, values: {2: {max: 1}, '2': {max: 3}}}\n", "spec:4: quotas.0.values: value '2' is given twice"),
        (BASE + "quotas: [{by: c, values: {null: {max: 1}, 'null': {}}}]\n", "spec:3: quotas.0.values: value 'null' is given twice"),
        (BASE + "quotas: [{by: c, max: 100000000000000000000}]\n", "spec:3: quotas.0.max: expected a number of at most 1,000,000,000,000,000,000, found 1"),
        (BASE + "quotas: [{by: c, min: true}]\n", "spec:3: quotas.0.min: expected a number, found true."),
        (BASE + "select: {seed: true}\n", "spec:3: select.seed: expected a number, found true."),
        (BASE + "splits: {train: .nan}\n", "spec:3: splits.train: expected a number of at least 0, found nan."),
        (BASE + "splits: {train: true}\n", "spec:3: splits.train: expected a number, found true."),
        (BASE + "novelty: {fdr: .nan}\n", "spec:3: novelty.fdr: expected a number of at least 0, found nan."),
        (BASE + "like: [12345678]\n", "spec:3: like.0: expected text, found 12345678. Put it in quotes."),
        (BASE + "like: 3f9a\n", "spec:3: like: expected a list, such as [a, b], found '3f9a'."),
        (BASE + "splits:\n  train: 1\n  keep_together: folder\n", "spec:5: keep_together: expected a list, such as [a, b], found 'folder'."),
        (BASE + "splits: {train+val: 1}\n", "spec:3: splits: 'train+val' cannot be the name of a split, which becomes a folder and a metric: use up to 50 letters"),
        (BASE + "splits: {'[Approve](http://evil)': 1}\n", "spec:3: splits: '[Approve](http://evil)' cannot be the name of a split"),
        (BASE + "splits: {Train: .5, train: .5}\n", "spec:3: splits: two splits have one name, or names that only differ in upper and lower case"),
        ("name: a\nbudget: true\n", "spec:2: budget: expected a number, found true."),
        ("name: a\nbudget: {bytes: true}\n", "spec:2: budget.bytes: expected a number, found true."),
        ("name: a\nbudget: {bytes: '0'}\n", "spec:2: budget.bytes: expected a number above 0, found 0."),
        ("name: a\nbudget: -1 GB\n", "spec:2: budget: expected a number of assets, or bytes such as 20 GB or 512 MiB, found '-1 GB'."),
        ("name: a\nbudget: '²'\n", "spec:2: budget: expected a number of assets, or bytes such as 20 GB or 512 MiB, found '²'."),
        ("name: a\nbudget: '0'\n", "spec:2: budget: expected a number above 0, found '0'."),
        ("name: a\nbudget: 0x" + "f" * 5000, "spec:2: budget: expected a number of at most 1,000,000,000,000,000,000, found a number of more than 36 digits."),
        ("name: a\nbudget: " + "9" * 5000, "spec: not valid YAML: Exceeds the limit"),
        ("name: 2026-99-99\nbudget: 3\n", "spec: not valid YAML: month must be in 1..12. Put text that looks like a date or a number in quotes."),
        ("name: B\nbudget: 3\n", "spec:1: name: expected at most 100 lower-case letters, digits, . _ and -, the first a letter or a digit, found 'B'."),
        ("name: " + "[" * 3000, "spec: lists and mappings are nested too deeply to be read."),
        ("name: " + "[" * 3000 + "]" * 3000, "spec: lists and mappings are nested too deeply to be read."),
        ("", "spec:1: expected a mapping with at least name and budget, found nothing."),
        (BASE + "splits: {train: .5}\n", "spec:3: splits must be fractions that sum to 1"),
        (BASE + "parent: x\n", "spec:3: parent: expected a version as name@3 or name@current, found 'x'."),
        (BASE + "include: [x]\nexclude: [x]\n", "'x' is in include and in exclude"),
        ("name: [", "spec:1: not valid YAML"),
        ("- a\n", "spec:1: expected a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_refused_with_its_line_and_the_next_step(text: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(text)
    assert said in str(error.value)


def test_only_what_differs_from_the_defaults_enters_a_digest_and_all_is_read_again() -> None:
    plain, written = parse_spec(BASE), parse_spec(BASE + "duplicates: drop\nselect: {method: facility_location}\nquotas: []\n")
    assert plain.identity() == written.identity() == '{"budget":3,"name":"a"}'
    rich = parse_spec("name: b\nbudget: {assets: 5, bytes: 3 MiB}\nparent: b@current\nsplits: {train: 1, stratify: c, keep_together: [folder]}\n")
    assert type(rich).model_validate_json(rich.canonical()) == rich
    assert (rich.limit_assets, rich.limit_bytes, rich.stratify, rich.keep_together) == (5, 3 * 2**20, "c", ("folder",))


def test_a_number_of_assets_may_stand_in_quotes_and_the_usual_shares_stand_beside_what_is_kept_together() -> None:
    assert parse_spec("name: a\nbudget: '2000'\n").budget == 2000
    assert parse_spec("name: a\nbudget: {bytes: '2000'}\n").limit_bytes == 2000
    spec = parse_spec(BASE + "splits: {keep_together: [folder]}\n")
    assert spec.splits == {"train": 0.8, "val": 0.1, "test": 0.1} and spec.keep_together == ("folder",)
    assert spec.place("keep_together", 0) == "spec:3"


def test_an_anchor_may_be_named_many_times_and_merged() -> None:
    spec = parse_spec(BASE + "quotas:\n- {by: c, values: {x: &few {max: 2}, y: *few, z: {<<: *few, min: 1}}}\n")
    assert spec.quotas[0].bounds_of("z") == Bounds(min=1, max=2) and spec.quotas[0].bounds_of("y") == Bounds(min=None, max=2)
    with pytest.raises(SpecError, match=r"spec:2: budget: expected a whole number, found a list\."):
        parse_spec("name: a\nbudget: &itself [*itself]\n")


def test_bounds_that_a_value_inherits_are_written_out_so_that_identity_and_every_round_trip_agree() -> None:
    short, free, whole = (
        parse_spec(BASE + f"quotas: [{{by: category, max: 5, values: {{cat: {{{own}}}}}}}]\n") for own in ("min: 2", "min: 2, max: null", "min: 2, max: 5")
    )
    assert short.quotas[0].bounds_of("cat") == Bounds(min=2, max=5) and free.quotas[0].bounds_of("cat") == Bounds(min=2, max=None)
    assert short == whole and short.identity() == whole.identity() != free.identity()
    for spec in (short, free):
        for again in (type(spec).model_validate(spec.model_dump()), type(spec).model_validate_json(spec.canonical()), spec.model_copy(update={"budget": 4})):
            assert again.quotas == spec.quotas and again.quotas[0].bounds_of("dog") == Bounds(min=None, max=5)


def test_values_of_quotas_may_be_numbers_truth_values_and_null() -> None:
    (quota,) = parse_spec(BASE + "quotas: [{by: c, values: {3: {max: 1}, 4.0: {max: 2}, true: {max: 3}, .5: {max: 4}, 2026-01-02: {max: 5}, null: {max: 6}}}]\n").quotas
    assert {name: bounds.max for name, bounds in quota.values.items()} == {"3": 1, "4": 2, "true": 3, "0.5": 4, "2026-01-02": 5, "null": 6}


@pytest.mark.parametrize(("text", "size"), [("4.35 kB", 4350), ("20 GB", 20 * 10**9), ("1.5MiB", 3 * 2**19), ("7 B", 7), ("7", 7), ("2 kB", 2000), ("2 KiB", 2048)])
def test_bytes_are_read_in_both_systems(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_saved_specs_stay_as_written_the_newest_stands_and_the_command_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "store")
    first, second = "# mine\nname: a\nbudget: 3\n", "name: a\nbudget: 4\n"
    with open_workspace(Config(root=root)) as ws:
        one = save_spec(first, "ana", ws)
        assert save_spec(first, "ben", ws) == one  # it stands already
        other = save_spec(second, "ben", ws)
        assert [(spec.text, spec.by) for spec in saved_specs(ws)] == [(second, "ben")] and other.id != one.id
        assert saved_spec("a", ws).budget == 4 and known_names(ws.config) == ["a"]
        with pytest.raises(UnknownRecord, match=r"No spec is saved as 'aa'\. Did you mean "):
            saved_spec("aa", ws)
        with pytest.raises(SpecError, match="unknown key"):
            save_spec("name: a\nbugdet: 3\n", "ana", ws)
        with pytest.raises(InvalidInput, match="at most 100,000 characters"):
            save_spec("#" * 100_001, "ana", ws)
        ws.catalog.set_name("spec", "a", one.id)  # a catalog that is rebuilt has what the journal says
    file = tmp_path / "b.yaml"
    file.write_text("name: b\nbudget: 2\n")
    assert main(["specs", "save", str(file), "--by", "cy", "--root", root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "b"
    assert main(["specs", "--root", root, "--json"]) == 0
    assert [(row["name"], row["by"]) for row in json.loads(capsys.readouterr().out)["specs"]] == [("a", "ana"), ("b", "cy")]
    assert main(["specs", "show", "b", "--root", root]) == 0
    assert capsys.readouterr().out == "name: b\nbudget: 2\n"
    assert main(["curate", "b", "--root", root]) != 0
    assert "no index" in capsys.readouterr().err  # the spec was found; there is nothing to curate from yet


def test_the_spec_of_a_version_is_read_whatever_its_splits_are_called() -> None:
    text = parse_spec("name: old\nbudget: 1\n").canonical()
    old = text.replace('"train":', '"train set":')
    assert old != text and "train set" in stored_spec(old).splits
    with pytest.raises(ValueError, match="cannot be the name of a split"):
        CollectionSpec.model_validate_json(old)
