"""Specs: what is refused, where, and with which next step; what a digest takes in; saved ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discovery.cli import main
from discovery.config import Config
from discovery.errors import InvalidInput, SpecError, UnknownRecord
from discovery.saved_names import known_names
from discovery.spec import parse_bytes, parse_spec
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
        (BASE + "quotas: [{by: c}, {by: C}]\n", "spec:3: quotas: 'c' has two"),
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


@pytest.mark.parametrize(("text", "size"), [("20 GB", 20 * 10**9), ("1.5MiB", 3 * 2**19), ("7 B", 7), ("7", 7), ("2 kB", 2000), ("2 KiB", 2048)])
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
