"""Aliases move as the how-to says: candidates, promotion, rollback, yank; two at once; and lineage names everything, in words and as a tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from discovery.cli import main
from discovery.config import Config
from discovery.core.standing import ALIAS, Standing, Yank, promoted, rolled_back, with_alias, with_newest, with_yank
from discovery.errors import ConfigError, InvalidInput, UnknownRecord
from discovery.stages.lineage import lineage, tree_lines
from discovery.stages.reindex import reindex
from discovery.stages.verify import verify
from discovery.stages.versions import find_row, find_version, move, standing_of
from discovery.types import DatasetVersion, MeasureShard
from discovery.version_page import Count, Linked, VersionPage, code, escape, spec_in_words, version_markdown
from discovery.workspace import Workspace, open_workspace

NOW = "2026-01-01T00:00:00+00:00"
SPEC = '{"budget":3,"parent":null,"select":{"method":"random"}}'
YANK = Yank("blurred", "ana", NOW)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(Config(root=str(tmp_path / "root")), map_shards=map) as opened:
        yield opened


def made(ws: Workspace, number: int, *inputs: str, name: str = "photos") -> DatasetVersion:
    record = DatasetVersion(
        id=f"{number:064x}", inputs=inputs, created_at=NOW, name=name, digest=f"d{number}", spec=SPEC, snapshot_id="a" * 64, encoder_id="e", assets=3,
        candidates=9, splits={"train": 3}, optimality_bound=None, leaked=0, removed_for_leakage=0,
    )  # fmt: skip
    ws.commit(record)
    ws.catalog.add_version(name, record.id, record.digest, NOW)
    return record


def test_a_new_version_is_the_candidate_at_once_and_an_old_one_never_again(ws: Workspace) -> None:
    made(ws, 1)
    assert standing_of("photos", ws).aliases == {"candidate": 1} and find_row("photos@candidate", ws).number == 1
    move("photos", lambda state: promoted(state, 1), "promote 1", "ana", ws)
    assert standing_of("photos", ws).aliases == {"current": 1}
    made(ws, 2)
    assert standing_of("photos", ws).aliases == {"current": 1, "candidate": 2}
    move("photos", lambda state: promoted(state, 2), "promote 2", "ben", ws)
    ws.catalog.add_version("photos", f"{1:064x}", "d1", NOW)  # curated again: the same number
    assert standing_of("photos", ws).aliases == {"current": 2, "previous": 1}
    assert [(row.what, row.said_by) for row in ws.catalog.standings("photos")] == [("promote 1", "ana"), ("promote 2", "ben")]


def test_versions_are_found_by_alias_number_and_id_and_never_by_alias_when_yanked(ws: Workspace) -> None:
    one, two = made(ws, 1), made(ws, 2)
    for number in (1, 2):
        move("photos", lambda state, n=number: promoted(state, n), "promote", "ana", ws)  # type: ignore[misc]
    move("photos", lambda state: with_alias(state, "paper", 2), "alias", "ana", ws)
    assert find_version("photos@current", ws) == find_version("photos@paper", ws) == find_version("photos@2", ws) == find_version("photos@v2", ws) == two
    move("photos", lambda state: with_yank(state, 2, YANK), "yank", "ana", ws)
    assert find_version("photos@current", ws) == one and find_version("photos@2", ws) == two
    for alias, hint in (("paper", "Known: current"), ("curent", 'Did you mean "current"')):
        with pytest.raises(UnknownRecord, match=hint):
            find_version(f"photos@{alias}", ws)
    with pytest.raises(UnknownRecord, match="No collection 'nothing'"):
        find_version("nothing@current", ws)
    for text in ("photos@", "photos@-x", "Photos@1", "photos"):
        with pytest.raises(ConfigError, match="is not a version"):
            find_version(text, ws)


def test_rolling_back_twice_goes_back_two_and_promotion_brings_forward() -> None:
    state = Standing(newest=3)
    for number in (1, 2, 3):
        state = promoted(state, number)
    once = rolled_back(state, None)
    assert (once.aliases, rolled_back(once, None).aliases, rolled_back(state, 1).aliases) == ({"current": 2, "previous": 1}, {"current": 1}, {"current": 1})
    assert promoted(once, 3).aliases == {"current": 3, "previous": 2}
    for to in (3, 7):
        with pytest.raises(InvalidInput, match="never current"):
            rolled_back(once, to)
    with pytest.raises(InvalidInput, match="no earlier good version"):
        rolled_back(rolled_back(state, 1), None)


def test_no_alias_points_at_a_yanked_version_whatever_the_steps() -> None:
    state = with_newest(with_alias(promoted(promoted(Standing(newest=2), 1), 2), "paper", 2), 3)
    for number in (3, 2):
        state = with_yank(state, number, YANK)
        assert number not in state.aliases.values()
    assert state.aliases == {"current": 1}
    for step in (lambda: promoted(state, 2), lambda: with_alias(state, "x", 2), lambda: with_alias(state, "current", 3), lambda: rolled_back(state, 2)):
        with pytest.raises(InvalidInput, match=r"was yanked by ana on .*: blurred"):
            step()
    assert with_yank(state, 1, YANK).aliases == {}
    assert with_yank(state, 2, None).aliases == {"current": 2, "previous": 1}  # the person's alias does not come back
    with pytest.raises(InvalidInput, match="not yanked"):
        with_yank(state, 1, None)
    with pytest.raises(InvalidInput, match="needs a reason"):
        with_yank(state, 1, Yank("  ", "ana", NOW))
    assert Standing.from_json(state.to_json()) == state


@pytest.mark.parametrize("alias", ["", "3", "v3", "latest", "Paper", "a.b", "ä", "previous", "candidate", "x" * 64])
def test_what_cannot_be_an_alias_is_refused(alias: str) -> None:
    with pytest.raises(InvalidInput):
        with_alias(Standing(), alias, 1)
    assert ALIAS.fullmatch("paper-2026_b")


def test_eight_who_move_aliases_at_once_all_take_their_step_and_a_lost_catalog_has_them_all(ws: Workspace, tmp_path: Path) -> None:
    for number in range(1, 9):
        made(ws, number)
    names = [f"name{number}" for number in range(1, 9)]
    with open_workspace(ws.config.replace(catalog={"url": f"sqlite:///{tmp_path / 'other.db'}"}), map_shards=map) as other:
        reindex(other)
        with ThreadPoolExecutor(8) as pool:
            steps = [(name, number + 1, ws if number % 2 else other) for number, name in enumerate(names)]
            list(pool.map(lambda step: move("photos", lambda state: with_alias(state, step[0], step[1]), step[0], "ana", step[2]), steps))
        reindex(ws)
        assert standing_of("photos", ws).named == {name: number for number, name in enumerate(names, 1)}
        assert [row.number for row in ws.catalog.standings("photos")] == list(range(1, 9))
    assert [line for line in verify(ws).missing if "standings" in line] == []
    with ws.catalog.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM standings WHERE number = 8")
    assert "catalog row of standings photos: number 8 of the journal" in verify(ws).missing


def test_lineage_goes_up_and_down_and_names_what_is_not_there(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shard = ws.commit(MeasureShard(id="b" * 64, inputs=("c" * 64,), created_at=NOW, producer="p", assets=7))
    first = made(ws, 1, shard.id)
    second = made(ws, 2, shard.id, first.id)
    up = lineage("photos@2", ws)
    assert [(node.id, node.depth) for node in up.nodes] == [(second.id, 0), (first.id, 1), (shard.id, 1)] and up.missing == ("c" * 64,)
    assert set(up.edges) == {(second.id, shard.id), (second.id, first.id), (first.id, shard.id), (shard.id, "c" * 64)}
    lines = tree_lines(up)
    assert lines[0].startswith(f"curate {second.id[:12]}  {NOW}  photos@2: 3 assets of 9 candidates")
    assert [line for line in lines if "measures of 7 assets" in line and "see above" in line] and f"{'c' * 12}  not in the catalog" in "".join(lines)
    down = lineage("bbbb", ws, descendants=True)
    assert [node.id for node in down.nodes] == [shard.id, first.id, second.id] and down.missing == ()
    assert tree_lines(down, descendants=True)[0].startswith("measure bbbb")
    assert main(["lineage", "photos@2", "--root", str(ws.config.root)]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def page(**changes: object) -> VersionPage:
    whole = {
        "name": "a", "number": 2, "digest": "d" * 64, "assets": 3, "candidates": 9, "splits": {"train": 3}, "leaked": 0, "optimality_bound": 0.9, "spec": SPEC,
        "parent": "a@1", "counts": [Count("", 3, 2, 1, 0, 0)], "links": [Linked("encoder", "e|[x](y)<b>", "#/x", "w")], "pictures": [("Lineage", "get-artifact?x")],
    }  # fmt: skip
    return VersionPage(**(whole | changes))  # type: ignore[arg-type]


def test_a_description_says_the_most_useful_first_and_never_too_much() -> None:
    text = version_markdown(page(warnings=["Yanked by ana"]))
    assert text.startswith("> **Yanked by ana**") and "| **all**&emsp; | 3&emsp; | 2&emsp; | 1&emsp; | 0&emsp; | 0&emsp; |" in text
    assert r"[e\|\[x\]\(y\)&lt;b&gt;](#/x)" in text and "![Lineage](get-artifact?x)" in text
    long = version_markdown(page(links=[Linked("m", "x" * 12, "#/x", "w" * 200)] * 30, pictures=[("Lineage", "p" * 3000)]))
    assert len(long) <= 8000 and long.count("\n| m") == 30 and "![" not in long and "At most 3 assets" in long


def test_a_spec_is_said_in_words() -> None:
    spec = {
        "budget": {"assets": 20, "bytes": None}, "mix": [{"name": "dark", "share": 0.7, "where": "brightness < 0.3", "like": [], "only_novel": False}, {"name": "rest", "share": None}],
        "quotas": [{"by": "category", "min": 1, "max": 9, "values": {"cats": {"min": None, "max": 3}}}], "include": ["a", "b"], "stratify": "category", "unheard_of": 3,
    }  # fmt: skip
    assert spec_in_words(json.dumps(spec)) == [
        "At most 20 assets.", "dark: 70%, where `brightness < 0.3`.", "rest: what is left, of all.", "Of each `category`: at least 1 and at most 9; of `cats` at most 3.",
        "2 assets always in, by name.", "Splits stratified by `category`.", r"unheard\_of: `3`.",
    ]  # fmt: skip


def test_names_are_text_in_markdown_and_in_code() -> None:
    assert escape("a_b*c|d\n# e <img>") == r"a\_b\*c\|d \# e &lt;img&gt;"
    assert code("x | y ``z``") == "``` x | y ``z`` ```"
