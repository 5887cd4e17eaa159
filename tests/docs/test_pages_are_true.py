"""What the pages name exists: links, settings, variables, commands and options, columns, methods; and the spec on them is a valid one."""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from discovery.cli import build_parser
from discovery.config import parse_config
from discovery.core.selection import SELECTORS
from discovery.spec import parse_spec
from discovery.stages.asset_table import _schema
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
    for name in re.findall(r"`((?:discovery|tests|docs|deploy|sql|dags)/[\w/.]*[\w/])`", page.read_text()):
        assert (PROJECT / name).exists(), name


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
    (spec,) = blocks(page, "yaml")
    assert parse_spec(spec).name == "low-light-animals"
    text = page.read_text()
    columns = text.split("**Columns for")[1].split("**:")[1].split("Subqueries")[0]
    listed = re.findall(r"`(\w+)`", columns)
    assert sorted(listed) == sorted(_schema().names)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(SELECTORS)
