"""What the pages name exists: links, settings, variables, commands and options, columns, methods; and the spec on them is a valid one."""

import argparse
import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest

from discovery.adapters.files import ATTEMPTS
from discovery.cli_parser import build_parser
from discovery.config import parse_config
from discovery.core.selection import SELECTORS
from discovery.spec import parse_spec
from discovery.stages.asset_table import _schema
from discovery.types import Reason
from tests.docs.examples import PROJECT
from tests.docs.settings_page import sections

PAGES = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", PROJECT / "deploy/README.md", *(PROJECT / "docs").rglob("*.md")])
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@named
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@named
def test_files_named_in_code_type_exist(page):
    for name in re.findall(r"`((?:benchmarks|discovery|tests|docs|deploy|sql|dags)/[\w/.]*[\w/])`", page.read_text()):
        assert (PROJECT / name).exists(), name


@named
def test_tests_named_in_code_type_exist(page):
    for name, test in re.findall(r"`(tests/[\w/.]+)::([^`]*)`", page.read_text()):
        assert test in named_tests(name), f"{name}::{test}"


@cache
def named_tests(name: str) -> set[str]:
    """The tests of a module, also those in a class."""
    return {node.name for node in ast.walk(ast.parse((PROJECT / name).read_text())) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_guarantee_names_what_holds_it():
    rows = (PROJECT / "docs/storage.md").read_text().split("| guarantee | test |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(rows) > 20 and [row for row in rows if not re.fullmatch(r"\| .+ \| `tests/[^|]+` \|", row)] == []


@named
def test_variables_and_settings_exist(page):
    text = page.read_text()
    for section, key in re.findall(r"DISCOVERY_([A-Z0-9]+)__([A-Z_]+)", text):
        assert key.lower() in type(sections()[section.lower()]).model_fields, f"{section}__{key}"
    known = sections()
    for section, key in re.findall(r"`(\w+)\.([a-z_0-9]+)`", text):
        if section in known:
            assert key in type(known[section]).model_fields, f"{section}.{key}"
    for block in blocks(page, "toml"):
        parse_config(tomllib.loads(block), origin=page.name)


@named
def test_commands_are_understood(page):
    parser = build_parser()
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            command = shlex.split(line, comments=True)
            if command[:1] == ["discovery"]:
                assert isinstance(parser.parse_args(command[1:]), argparse.Namespace)


def test_the_spec_of_the_how_to_is_valid_and_its_columns_and_methods_are_those_there_are():
    page = PROJECT / "docs/howto/collections.md"
    assert [parse_spec(spec).name for spec in blocks(page, "yaml")] == ["low-light-animals", "mixed"]
    text = page.read_text()
    columns = text.split("**Columns for")[1].split("**:")[1].split("Subqueries")[0]
    listed = re.findall(r"`(\w+)`", columns)
    assert sorted(listed) == sorted(_schema().names)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(SELECTORS)


def test_the_reasons_of_the_how_to_are_those_there_are_and_are_read_again_as_it_says():
    text = (PROJECT / "docs/howto/sources.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.split("| reason | what happened | read again |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()]
    again = {name: when for names, _, when in rows for name in re.findall(r"`(\w+)`", names)}
    assert sum(names.count("`") // 2 for names, _, _ in rows) == len(again) and set(again) == set(Reason)
    said = {reason: "by the next run" if reason.is_transient else "when the object changes" if reason.is_settled else "" for reason in Reason}
    assert again == {reason: when or "when it, the listing or a limit changes" for reason, when in said.items()}


def test_a_transfer_is_attempted_as_often_as_the_how_to_says():
    (attempts,) = re.findall(r"a cut-off transfer after (\w+) attempts", (PROJECT / "docs/howto/sources.md").read_text())
    assert ["one", "two", "three", "four", "five", "six", "seven", "eight"][ATTEMPTS - 1] == attempts
