"""One-file HTML reports of quality: what was expected and what became of it, tables, distributions and pictures; no links, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from discovery.core.expectations import Outcome
from discovery.gallery import Tile

BINS = 24


def quality_html(title: str, lead: str, outcomes: Sequence[Outcome], sections: Sequence[tuple[str, str]]) -> str:
    """A self-contained page.

    lead: text below the title. sections: heading and HTML of each, from the functions below, which escape what they are given.

    >>> "&lt;b&gt;" in quality_html("<b>", "", [], [])
    True
    """
    failed = [one.expectation.name for one in outcomes if one.fails]
    missed = [one.expectation.name for one in outcomes if not one.is_met and not one.fails]
    verdict = f"Failed: {', '.join(failed)}" if failed else "Passed"
    told = f"<p class=missed>Missed, which does not fail it: {escape(', '.join(missed))}.</p>" if missed else ""
    body = "".join(f"<h2>{escape(heading)}</h2>{html}" for heading, html in sections)
    return f"""<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{escape(title)}</title><style>
body{{font:14px/1.5 system-ui,sans-serif;margin:1.5rem auto;padding:0 1rem;max-width:72rem;color:#1f2328;background:#fff}}
h2{{margin:2rem 0 .5rem;font-size:1.15rem}}p{{max-width:56rem}}small,.why{{color:#59636e}}
.scroll{{overflow-x:auto}}table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
td,th{{padding:.3rem .7rem;border-bottom:1px solid #d1d9e0;text-align:left;vertical-align:top}}td.n,th.n{{text-align:right}}
.verdict{{font-size:1.2rem;font-weight:600}}.met{{color:#1a7f37}}.missed{{color:#9a6700}}.FAILED{{color:#cf222e;font-weight:600}}
.grid{{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px}}figure{{margin:0}}
.wide{{grid-template-columns:repeat(auto-fill,minmax(300px,1fr))}}.pair{{display:grid;grid-template-columns:1fr 1fr;gap:4px}}.pair figcaption{{grid-column:1/3}}
.lost{{display:grid;place-items:center;height:120px;background:#f6f8fa;color:#59636e;border-radius:6px}}
img{{width:100%;height:120px;object-fit:contain;background:#f6f8fa;border-radius:6px}}figcaption{{font-size:12px;overflow-wrap:anywhere}}
svg{{display:block}}rect{{fill:#0969da}}code{{font-size:12px}}
@media(prefers-color-scheme:dark){{body{{color:#e6edf3;background:#0d1117}}small,.why{{color:#9198a1}}td,th{{border-color:#3d444d}}
img,.lost{{background:#161b22}}.met{{color:#3fb950}}.missed{{color:#d29922}}.FAILED{{color:#f85149}}rect{{fill:#4493f8}}}}
</style><h1>{escape(title)}</h1><p class="verdict {"FAILED" if failed else "met"}">{escape(verdict)}</p>{told}<p>{escape(lead)}</p>
<h2>Expectations</h2>{_outcomes(outcomes)}{body}</html>"""


def _outcomes(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for one in sorted(outcomes, key=lambda one: ("FAILED", "missed", "met").index(one.verdict)):
        expected = one.expectation
        share = "" if expected.mostly >= 1 else f"<br><small>for {100 * expected.mostly:g} % at least</small>"
        rows.append(
            f"<tr><td class={one.verdict}>{one.verdict}<td>{escape(expected.name)}<br><small>{escape(expected.why)}</small>"
            f"<td><code>{escape(expected.bounds)}</code>{share}<td>{escape(one.statement)}<td>{expected.severity.value}<td>{expected.action.value}"
        )
    head = "<tr><th>result<th>expectation<th>expected<th>found<th>severity<th>action"
    return f"<div class=scroll><table>{head}{''.join(rows)}</table></div>"


def table_html(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers to the right, four digits of what is no whole number."""
    is_number = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(f"<{tag}{' class=n' if right else ''}>{escape(_text(value))}" for value, right in zip(values, is_number, strict=True))

    body = "".join(f"<tr>{cells('td', row)}" for row in rows)
    return f"<div class=scroll><table><tr>{cells('th', head)}{body}</table></div>" if rows else "<p class=why>none</p>"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def distributions_html(columns: Mapping[str, NDArray[np.float64]]) -> str:
    """A row a column: minimum, quantiles, maximum, and a histogram between the 1st and the 99th percentile; NaN is left out and counted."""
    rows = []
    for name, values in columns.items():
        known = values[np.isfinite(values)]
        if not len(known):
            continue
        low, *inner, high = np.quantile(known, [0, 0.05, 0.5, 0.95, 1])
        cells = "".join(f"<td class=n>{value:.4g}" for value in (low, *inner, high))
        rows.append(f"<tr><td>{escape(name)}{cells}<td class=n>{len(values) - len(known):,}<td>{_histogram(known)}")
    head = "<tr><th>column<th class=n>min<th class=n>5 %<th class=n>median<th class=n>95 %<th class=n>max<th class=n>no value<th>distribution"
    return f"<div class=scroll><table>{head}{''.join(rows)}</table></div>" if rows else "<p class=why>no pictures</p>"


def _histogram(known: NDArray[np.float64]) -> str:
    low, high = np.quantile(known, [0.01, 0.99])
    counts, _ = np.histogram(known, bins=BINS, range=(low, high if high > low else low + 1))
    heights = 24 * counts / max(int(counts.max()), 1)
    bars = "".join(f"<rect x={5 * place} y={24 - h:.1f} width=4 height={h:.1f} />" for place, h in enumerate(heights) if h)
    return f'<svg width={5 * BINS} height=24 role=img aria-label="histogram">{bars}</svg>'


def bars_html(counts: Mapping[str, int], limit: int = 30) -> str:
    """Names with their counts as bars, largest first."""
    largest = max(counts.values(), default=1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        f"<tr><td>{escape(name)}<td class=n>{count:,}<td><svg width=240 height=12 role=img aria-label={count}><rect width={240 * count / largest:.1f} height=12 /></svg>"
        for name, count in ordered[:limit]
    ]
    rest = f"<p class=why>and {len(ordered) - limit:,} smaller ones</p>" if len(ordered) > limit else ""
    return f"<div class=scroll><table>{''.join(rows)}</table></div>{rest}"


def tiles_html(tiles: Sequence[Tile]) -> str:
    """Pictures inside the page, each with a title and a line."""
    figures = "".join(
        f"<figure>{_image(tile)}<figcaption>{escape(tile.title)}<br><small>{escape(tile.line)}</small></figcaption></figure>"
        for tile in tiles
    )
    return f"<div class=grid>{figures}</div>" if tiles else "<p class=why>none</p>"


def pairs_html(pairs: Sequence[tuple[Tile, Tile]]) -> str:
    """Pictures two and two, each pair with the line of its first."""
    figures = "".join(
        f"<figure class=pair>{_image(first)}{_image(second)}"
        f"<figcaption>{escape(first.title)} | {escape(second.title)}<br><small>{escape(first.line)}</small></figcaption></figure>"
        for first, second in pairs
    )
    return f"<div class='grid wide'>{figures}</div>" if pairs else "<p class=why>none</p>"


def _image(tile: Tile) -> str:
    if not tile.webp:
        return "<span class=lost>no thumbnail</span>"
    return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(tile.webp).decode()}">'


def text_html(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"
