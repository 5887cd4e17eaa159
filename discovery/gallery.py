"""One-file HTML galleries: thumbnails inside the page, no links, so that they open anywhere, also in MLflow's sandbox."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture: WebP bytes, a title and a line below it."""

    webp: bytes
    title: str
    line: str


def gallery_html(title: str, lead: str, sections: Sequence[tuple[str, Sequence[Tile]]]) -> str:
    """A self-contained page of picture sections; all text is escaped.

    >>> "&lt;b&gt;" in gallery_html("<b>", "", [])
    True
    """
    body = []
    for heading, tiles in sections:
        figures = "".join(
            f'<figure><img alt="" loading=lazy src="data:image/webp;base64,{base64.b64encode(tile.webp).decode()}">'
            f"<figcaption title='{escape(tile.title, quote=True)}'>{escape(tile.title)}<br><small>{escape(tile.line)}</small></figcaption></figure>"
            for tile in tiles
        )
        body.append(f"<h2>{escape(heading)} <small>{len(tiles)}</small></h2><div class=grid>{figures}</div>")
    return f"""<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{escape(title)}</title><style>
body{{font:14px/1.45 system-ui,sans-serif;margin:1.5rem;color:#1f2328;background:#fff}}small{{color:#59636e;font-weight:400}}
.grid{{display:grid;grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:10px}}figure{{margin:0}}
img{{width:100%;height:130px;object-fit:contain;background:#f6f8fa;border-radius:6px}}
figcaption{{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font-size:12px}}
@media(prefers-color-scheme:dark){{body{{color:#e6edf3;background:#0d1117}}img{{background:#161b22}}small{{color:#9198a1}}}}
</style><h1>{escape(title)}</h1><p>{escape(lead)}</p>{"".join(body)}</html>"""
