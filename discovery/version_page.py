"""The description of a dataset version in MLflow: Markdown, at most 8,000 characters, what is asked most first."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LIMIT = 8000  # MLflow cuts longer ones without a word
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")
CELL_LIMIT, WARNING_LIMIT = 300, 700
GAP = "&emsp;"  # MLflow's tables have no lines and no padding


@dataclass(frozen=True, slots=True)
class Count:
    """How many members a split has (or all, with an empty name), how many the parent had, and what came, went and changed its split."""

    split: str
    members: int
    before: int
    added: int
    removed: int
    moved: int


@dataclass(frozen=True, slots=True)
class Linked:
    """A line of the table of links: what it is, its name, where it is shown (empty for nowhere), and what it says in words."""

    what: str
    name: str
    link: str
    words: str


@dataclass(frozen=True, slots=True)
class VersionPage:
    """All that a description tells. parent: its name, empty for none; warnings: said before anything else; pictures: title and address."""

    name: str
    number: int
    digest: str
    assets: int
    candidates: int
    splits: Mapping[str, int]
    leaked: int
    optimality_bound: float | None
    spec: str
    parent: str
    counts: Sequence[Count]
    links: Sequence[Linked]
    pictures: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


def version_markdown(page: VersionPage) -> str:
    """The description; sections that would make it too long are left out from the end."""
    splits = ", ".join(f"{escape(name)} {n:,}" for name, n in page.splits.items())
    bound = "" if page.optimality_bound is None else f" The selection reaches at least {page.optimality_bound:.0%} of the optimum."
    leaks = "No member leaks between splits." if not page.leaked else f"**{page.leaked:,} members leak between splits.**"
    links = ["**Made from, and what was found**", "", "| | | |", "|---|---|---|", *(_link_row(one) for one in page.links)]
    pictures = [f"**{escape(title)}**\n\n![{escape(title)}]({address})" for title, address in page.pictures]
    spec = "\n".join(f"- {line}" for line in spec_in_words(page.spec))
    sections = [
        *(f"> **{escape(warning[:WARNING_LIMIT])}**" for warning in page.warnings),
        f"### {escape(page.name)}@{page.number}\n\n{page.assets:,} assets of {page.candidates:,} candidates: {splits}. {leaks}{bound}\n\nDigest `{page.digest}`",
        _counts_table(page),
        "\n".join(links),
        *pictures[:1],
        f"**What was asked for**\n\n{spec}",
        *pictures[1:],
        *(escape(note) for note in page.notes),
    ]
    text = ""
    for section in sections:
        if len(text) + len(section) + 2 <= LIMIT:
            text += ("\n\n" if text else "") + section
    return text


def spec_in_words(spec: str) -> list[str]:
    """What a spec asks for, a line a rule, as Markdown.

    >>> spec_in_words('{"budget": 20, "where": "brightness < 0.3", "select": {"method": "random", "seed": 7}}')
    ['At most 20 assets.', 'Where `brightness < 0.3`.', 'Chosen by `random`, seed 7.']
    """
    data: dict[str, Any] = json.loads(spec)
    lines = []
    for key, value in data.items():
        if value in (None, "", [], {}) or key in ("name", "seed"):
            continue
        match key, value:
            case "budget", int():
                lines.append(f"At most {value:,} assets.")
            case "budget", dict():
                lines.append(f"At most {' and '.join(f'{most:,} {what}' for what, most in value.items() if most is not None)}.")
            case "where", str():
                lines.append(f"Where {code(value)}.")
            case ("like" | "unlike"), list():
                some = ", ".join(code(str(one)[:12]) for one in value[:4]) + ("…" if len(value) > 4 else "")
                lines.append(f"{'Like' if key == 'like' else 'Unlike'} {len(value):,} examples: {some}.")
            case "select", {"method": method, **rest}:
                seed = f", seed {rest['seed']}" if "seed" in rest else ""
                lines.append(f"Chosen by {code(str(method))}{seed}.")
            case "quotas", list():
                for one in value:
                    own = [f"; of {code(str(name))} {_bounds(bounds)}" for name, bounds in one.get("values", {}).items()]
                    lines.append(f"Of each {code(str(one.get('by')))}: {_bounds(one)}{''.join(own)}.")
            case ("include" | "exclude"), list():
                lines.append(f"{len(value):,} assets {'always' if key == 'include' else 'never'} in, by name.")
            case "mix", list():
                for one in value:
                    share = f"{one['share']:.0%}" if one.get("share") is not None else "what is left"
                    rules = [f"where {code(one['where'])}"] if one.get("where") else []
                    rules += [f"{word} {len(one[word]):,} examples" for word in ("like", "unlike") if one.get(word)] + ["only what is novel"] * bool(one.get("only_novel"))
                    lines.append(f"{escape(str(one.get('name')))}: {share}, {', '.join(rules) or 'of all'}.")
            case "stratify", str():
                lines.append(f"Splits stratified by {code(value)}.")
            case "novelty", dict():
                if value.get("only_novel"):
                    lines.append(f"Only what is novel, at a false-discovery rate of {value.get('fdr')}.")
            case "duplicates", str():
                lines.append("One of each group of copies." if value == "drop" else "Copies are kept.")
            case "must_not_leak_into", list():
                lines.append(f"Nothing that is in, or is a copy of something in, {', '.join(code(str(one)) for one in value)}.")
            case "splits", dict():
                lines.append(f"Splits: {', '.join(f'{escape(name)} {share:.0%}' for name, share in value.items())}.")
            case "keep_together", list():
                lines.append(f"In one split together: {', '.join(escape(str(one)) for one in value)}.")
            case "parent", str():
                lines.append(f"Grown from {code(value)}: its members stay, in their splits.")
            case _:
                lines.append(f"{escape(key)}: {code(json.dumps(value)[:CELL_LIMIT])}.")
    return lines


def escape(text: str) -> str:
    """Text as Markdown that says just that, in one line, also within a table.

    >>> escape("<b>a|b</b>")
    '&lt;b&gt;a\\\\|b&lt;/b&gt;'
    """
    line = " ".join(text.split()).replace("&", "&amp;")
    return SPECIAL.sub(r"\\\1", line.replace("<", "&lt;").replace(">", "\0")).replace("\0", "&gt;")


def code(text: str) -> str:
    """Text in code type, whatever is in it; no letter of it is Markdown. Not for tables, where a | would end the cell.

    >>> code("a`b")
    '``a`b``'
    """
    line = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def _bounds(quota: Mapping[str, Any]) -> str:
    given = [f"{words} {quota[key]:,}" for key, words in (("min", "at least"), ("max", "at most")) if quota.get(key) is not None]
    return " and ".join(given) or "any number"


def _counts_table(page: VersionPage) -> str:
    if not page.parent:
        return "No parent: this is where the collection begins." if page.number == 1 else "No parent: chosen anew."
    head = [f"against {escape(page.parent)}", "members", "before", "added", "removed", "other split"]
    rows = [head, ["---"] * len(head)]
    rows += [[escape(one.split) or "**all**", *(f"{n:,}" for n in (one.members, one.before, one.added, one.removed, one.moved))] for one in page.counts]
    return "\n".join(f"| {' | '.join(cell if cell == '---' else cell + GAP for cell in row)} |" for row in rows)


def _link_row(one: Linked) -> str:
    name = escape(one.name[:CELL_LIMIT])
    return f"| {escape(one.what)}{GAP} | {f'[{name}]({one.link})' if one.link else name}{GAP} | {escape(one.words[:CELL_LIMIT])} |"
