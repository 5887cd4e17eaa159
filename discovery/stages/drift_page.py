"""The page of a drift report: words first, then figures and pictures; one file that needs no script, no network and no other file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from discovery.config import DriftConfig
from discovery.core.drift import ColumnDrift, in_words
from discovery.core.histogram import Histogram, histogram
from discovery.stages.drift_lacks import Lack
from discovery.stages.drift_style import STYLE
from discovery.stages.drift_words import counted, lacking_sentence, moved_sentence, p_text, percent, plain, told_apart, verdict
from discovery.types import DriftReport, SetSide

Columns = Mapping[str, NDArray[np.generic]]
Thumbnail = Callable[[str], bytes]  # empty for none
MOST_THEMES, MOST_OF_THEME, MOST_CARDS = 16, 6, 12  # about 10 kB a picture; the whole page stays under some 2 MB
WIDTH, HEIGHT, FOOT = 300, 96, 16  # of a histogram


@dataclass(frozen=True)
class Findings:
    """All that the page shows. only_a, only_b: ids of the pictures that tell a from b best; empty where there is no difference to tell."""

    report: DriftReport
    config: DriftConfig
    columns: tuple[ColumnDrift, ...]
    values_a: Columns
    values_b: Columns
    lack_a: Lack | None
    lack_b: Lack | None
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    addresses: Mapping[str, str]

    @property
    def floor(self) -> float:
        """The lowest p-value that the permutations allow, of two tests."""
        return 2 / (1 + self.config.permutations)


def drift_html(findings: Findings, thumbnail: Thumbnail) -> str:
    """The page. thumbnail: WebP of an asset, None where there is none. Every text from outside is escaped."""
    report = findings.report
    moved = [one for one in findings.columns if one.is_moved]
    numbers, made_of = [one for one in moved if one.is_number], [one for one in moved if not one.is_number]
    parts = [
        _head(findings),
        _cards("What moved", "".join(_number_card(one, findings) for one in numbers[:MOST_CARDS])),
        _cards("What they are made of", "".join(_category_card(one) for one in made_of[:MOST_CARDS])),
        _lacking("A has and B lacks", "A", "B", report.a, findings.lack_a, findings, thumbnail),
        _lacking("B has and A lacks", "B", "A", report.b, findings.lack_b, findings, thumbnail),
        _telling(findings, thumbnail),
        _all_columns(findings),
        _method(findings),
    ]
    title = f"Drift: {report.a.label} and {report.b.label}"
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><main>{''.join(parts)}</main></html>"
    )


def _head(findings: Findings) -> str:
    report = findings.report
    lines = [
        told_apart(report, findings.floor), moved_sentence(findings.columns), lacking_sentence(report.b, "B", "A"),
        lacking_sentence(report.a, "A", "B"),
    ]  # fmt: skip
    sets = "".join(
        f"<div class=set>{_chip(name)}<div><b>{escape(side.label)}</b><br><small>{counted(side.assets, 'picture')}{_units(side)}</small></div></div>"
        for name, side in (("A", report.a), ("B", report.b))
    )
    both = f"<p><small>{counted(report.shared, 'picture')} of these are in both.</small></p>" if report.shared else ""
    items = "".join(f"<li>{escape(line)}" for line in lines if line)
    state = "yes" if report.is_drifted else "no"
    return f"<h1>Drift: how B differs from A</h1><div class=sets>{sets}</div>{both}<section class='verdict {state}'><h2>{escape(verdict(report))}</h2>{_gauge(report)}<ul>{items}</ul></section>"


def _units(side: SetSide) -> str:
    return f", {side.units:,} compared: one of each burst and video" if side.units != side.assets else ""


def _chip(name: str) -> str:
    return f"<span class='chip {name.lower()}'>{name}</span>"


def _gauge(report: DriftReport) -> str:
    """How often the sets are told apart, from guessing to always, with the interval."""
    if report.auc is None or report.auc_low is None or report.auc_high is None or report.auc_low == report.auc_high:
        return ""

    def at(value: float) -> float:
        return 10 + 580 * (max(value, 0.5) - 0.5) / 0.5

    low, middle, high = at(report.auc_low), at(report.auc), at(report.auc_high)
    said = f"told apart {percent(report.auc)} of the time"
    side = "end" if middle > 300 else "start"
    return (
        f"<svg class=gauge viewBox='0 0 600 58' role=img aria-label='{said}'><rect class=track x=10 y=26 width=580 height=8 rx=4 />"
        f"<rect class=span x={low:.1f} y=26 width={max(high - low, 2):.1f} height=8 rx=4 /><circle class=mark cx={middle:.1f} cy=30 r=8 />"
        f"<text x={middle:.1f} y=15 class=strong text-anchor={side}>{said}</text><text x=10 y=54>50 %: guessing</text><text x=300 y=54 text-anchor=middle>75 %</text>"
        "<text x=590 y=54 text-anchor=end>100 %: always</text></svg>"
    )


def _cards(title: str, cards: str) -> str:
    return f"<h2>{title}</h2><div class=cards>{cards}</div>" if cards else ""


def _number_card(one: ColumnDrift, findings: Findings) -> str:
    drawn = histogram(findings.values_a[one.name], findings.values_b[one.name])
    side = "higher" if one.shift > 0 else "lower"
    change = f"median {_number(one.median_a)} to {_number(one.median_b)}" + (f", {abs(one.shift):.2g} interquartile ranges {side}" if one.shift else "")
    if one.missing_a or one.missing_b:
        change += f"; not said of {percent(one.missing_a)} and {percent(one.missing_b)}"
    return (
        f"<article><h3>{escape(plain(one.name))} <em>{escape(in_words(one))}</em></h3>{_histogram_svg(drawn, one)}"
        f"<p>{change}<br><small>PSI {one.psi:.2f} ({one.psi_by_chance:.2f} by chance): {one.size} moved · KS {one.distance:.2f} · {_p(one.adjusted_p)}</small></article>"
    )


def _histogram_svg(drawn: Histogram, one: ColumnDrift) -> str:
    """Both distributions as steps over one axis, with their medians."""
    top = max(*drawn.share_a, *drawn.share_b, 1e-9)
    count = len(drawn.share_a)
    step = WIDTH / count

    def steps(shares: tuple[float, ...]) -> str:
        heights = [HEIGHT - 4 - (HEIGHT - 12) * share / top for share in shares]
        line = "".join(f"L{number * step:.1f} {y:.1f}H{(number + 1) * step:.1f}" for number, y in enumerate(heights))
        return f"M0 {HEIGHT - 4}{line}V{HEIGHT - 4}Z"

    def place(value: float) -> float:
        low, high = drawn.edges[0], drawn.edges[-1]
        if drawn.is_log:
            low, high, value = float(np.log(low)), float(np.log(high)), float(np.log(max(value, 1e-300)))
        return WIDTH * min(1.0, max(0.0, (value - low) / (high - low)))

    medians = "".join(
        f"<line class='median {name}' x1={place(value):.1f} x2={place(value):.1f} y1=4 y2={HEIGHT - 4} />" for name, value in (("a", one.median_a), ("b", one.median_b))
    )
    middle = drawn.edges[count // 2]
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT + FOOT}' role=img aria-label='{escape(plain(one.name), quote=True)} of A and of B'>"
        f"<path class='area a' d='{steps(drawn.share_a)}'/><path class='area b' d='{steps(drawn.share_b)}'/>{medians}"
        f"<line class=axis x1=0 x2={WIDTH} y1={HEIGHT - 4} y2={HEIGHT - 4} /><text x=0 y={HEIGHT + 11}>{_number(drawn.edges[0])}</text>"
        f"<text x={WIDTH / 2} y={HEIGHT + 11} text-anchor=middle>{_number(middle)}{' (log scale)' if drawn.is_log else ''}</text>"
        f"<text x={WIDTH} y={HEIGHT + 11} text-anchor=end>{_number(drawn.edges[-1])}</text></svg>"
    )


def _category_card(one: ColumnDrift) -> str:
    rows = "".join(
        f"<div class=value><span>{escape(change.value)}</span><div class=bars>"
        f"<i class=a style='width:{100 * change.share_a:.1f}%'></i><i class=b style='width:{100 * change.share_b:.1f}%'></i></div>"
        f"<small>{percent(change.share_a)} to {percent(change.share_b)}</small></div>"
        for change in one.changes
    )
    return (
        f"<article><h3>{escape(plain(one.name))}</h3>{rows}"
        f"<p><small>PSI {one.psi:.2f} ({one.psi_by_chance:.2f} by chance): {one.size} moved · {percent(one.distance)} of the rows lie elsewhere · {_p(one.adjusted_p)}</small></article>"
    )


def _lacking(title: str, name: str, other: str, side: SetSide, lack: Lack | None, findings: Findings, thumbnail: Thumbnail) -> str:
    said = f"<h2>What {title}</h2><p>{escape(lacking_sentence(side, name, other))}</p>"
    if lack is None or not len(lack.ids):
        return said
    said += (
        f"<p><small>Farther than {lack.threshold:.2f} in cosine distance, while {percent(findings.config.usual)} of {other}'s own pictures have another one nearer than that. "
        f"The first picture of a theme stands for it; beside it is what {other} has nearest.</small></p>"
    )
    ids = [one.decode() for one in lack.ids.tolist()]
    nearest = [one.decode() for one in lack.nearest.tolist()]
    blocks = []
    for number, exemplar in enumerate(lack.exemplars[:MOST_THEMES].tolist()):
        members = np.flatnonzero(lack.theme == number).tolist()
        shown = [exemplar, *(place for place in members if place != exemplar)][:MOST_OF_THEME]
        tiles = "".join(_tile(ids[place], findings, thumbnail, f"{lack.distances[place]:.2f} away") for place in shown)
        more = f"<p><small>and {len(members) - len(shown):,} more</small></p>" if len(members) > len(shown) else ""
        closest = _tile(nearest[exemplar], findings, thumbnail, f"nearest in {other}")
        title = f"{', '.join(lack.words[number]) or f'Theme {number + 1}'}"
        blocks.append(
            f"<section class=theme><h3>{escape(title)} <small>{counted(len(members), 'picture')}</small></h3>"
            f"<div class=row><div class='tiles {name.lower()}'>{tiles}</div><div class='near {other.lower()}'>{closest}</div></div>{more}</section>"
        )
    hidden = len(lack.exemplars) - MOST_THEMES
    rest = f"<p><small>{counted(hidden, 'smaller theme')} not shown; the table of the report lists all.</small></p>" if hidden > 0 else ""
    themes = f"<div class=themes>{''.join(blocks)}</div>{rest}"
    return said + (themes if side.is_more_than_chance else f"<details><summary>Show them all the same</summary>{themes}</details>")


def _telling(findings: Findings, thumbnail: Thumbnail) -> str:
    if not findings.only_a or not findings.only_b:
        return ""
    rows = "".join(
        f"<h3>{_chip(name)} most unlike {other}</h3><div class='grid {name.lower()}'>{''.join(_tile(one, findings, thumbnail, '') for one in ids)}</div>"
        for name, other, ids in (("A", "B", findings.only_a), ("B", "A", findings.only_b))
    )
    return f"<h2>What tells them apart</h2><p>The pictures that a classifier, which had not seen them, is surest of.</p>{rows}"


def _tile(asset_id: str, findings: Findings, thumbnail: Thumbnail, line: str) -> str:
    webp = thumbnail(asset_id)
    address = findings.addresses.get(asset_id, asset_id)
    name = address.rstrip("/").rsplit("/", 1)[-1]
    picture = f'<img alt="" src="data:image/webp;base64,{base64.b64encode(webp).decode()}">' if webp else "<span class=none>no thumbnail</span>"
    below = f"<br><small>{escape(line)}</small>" if line else ""
    return f'<figure title="{escape(address, quote=True)}&#10;{asset_id}">{picture}<figcaption>{escape(name)}{below}</figcaption></figure>'


def _all_columns(findings: Findings) -> str:
    rows = "".join(
        f"<tr class={'on' if one.is_moved else 'off'}><td>{escape(plain(one.name))}<td>{escape(in_words(one)) if one.is_moved else '-'}<td>{one.psi:.3f}<td>{one.psi_by_chance:.3f}"
        f"<td>{one.distance:.3f}<td>{_p(one.adjusted_p).removeprefix('p = ')}<td>{f'{one.shift:+.2f}' if one.is_number else '-'}<td>{f'{one.wasserstein:.2f}' if one.is_number else '-'}"
        for one in findings.columns
    )
    return (
        f"<details><summary>All {len(findings.columns)} columns</summary><div class=wide><table><tr><th>column<th>B is<th>PSI<th>by chance<th>KS or total variation"
        f"<th>p (Holm)<th>shift of the median<th>Wasserstein{rows}</table></div><p><small>Shift and Wasserstein distance are in interquartile ranges of A.</small></details>"
    )


def _method(findings: Findings) -> str:
    report, config = findings.report, findings.config
    lines = [
        "Of a duplicate group, a burst and a video one picture stands for all. In the tests of vectors a picture of both sets counts on one side.",
        f"Vectors: kernel two-sample test (MMD, Gaussian kernels of five bandwidths) and a cross-validated linear classifier, {config.permutations:,} permutations each; "
        f"p is twice the smaller of both. Drift is p ≤ {config.level:g}. The AUC is the effect: many pictures make a small difference certain, not large.",
        "Columns: PSI on ten quantile bins of A, half a row added to each; Kolmogorov-Smirnov or chi-square, Holm over all columns. Moved: significant, and PSI at least .1 "
        "beyond what chance gives at these numbers of rows (.1 some, .25 much: the rule of thumb of Siddiqi 2006).",
        f"Lacking: farther from the other set than {percent(config.usual)} of its members are from each other. Themes: average linkage of these.",
        f"Report {report.id}, encoder {report.encoder_id}. A is {report.a.set_id} of index snapshot {report.a.snapshot_id}, B {report.b.set_id} of {report.b.snapshot_id}.",
    ]
    return f"<details><summary>How it was measured</summary><ul>{''.join(f'<li>{escape(line)}' for line in lines)}</ul></details>"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _p(p_value: float) -> str:
    return p_text(p_value, 0.0) if p_value >= 0.001 else "p < 0.001"
