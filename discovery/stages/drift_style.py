"""How a drift report looks: light and dark, on a phone and on paper."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--fg:#1f2328;--dim:#59636e;--bg:#fff;--card:#f6f8fa;--line:#d1d9e0;--a:#2166ac;--b:#c4540a;--yes:#c4540a;--no:#1a7f37}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--dim:#9198a1;--bg:#0d1117;--card:#161b22;--line:#3d444d;--a:#6cb0f5;--b:#f2994a;--yes:#f2994a;--no:#3fb950}}
*{box-sizing:border-box}body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}main{max-width:68rem;margin:0 auto;padding:1rem 1.2rem 3rem}
h1{font-size:1.3rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:.2rem 0 .5rem}h3 em{font-style:normal;font-weight:400;color:var(--dim)}
small{color:var(--dim)}.sets{display:flex;flex-wrap:wrap;gap:.6rem 2rem}.set{display:flex;gap:.6rem;align-items:flex-start;min-width:0;overflow-wrap:anywhere}
.chip{flex:none;display:inline-block;min-width:1.5rem;padding:0 .4rem;border-radius:4px;text-align:center;font-weight:600;color:var(--bg)}.chip.a{background:var(--a)}.chip.b{background:var(--b)}
.verdict{margin:1rem 0;padding:.8rem 1.2rem;border:1px solid var(--line);border-left:5px solid var(--no);border-radius:6px;background:var(--card)}.verdict.yes{border-left-color:var(--yes)}
.verdict h2{margin:.2rem 0 .6rem}.verdict ul{margin:.4rem 0;padding-left:1.1rem}li{margin:.3rem 0}
svg{display:block;width:100%;height:auto}svg text{font-size:11px;fill:var(--dim)}.gauge{max-width:36rem}.gauge text{font-size:13px}.gauge .strong{fill:var(--fg);font-weight:600}
.track{fill:var(--line)}.span{fill:var(--b);opacity:.45}.mark{fill:var(--b)}.area{fill-opacity:.3;stroke-width:1.5}.area.a{fill:var(--a);stroke:var(--a)}.area.b{fill:var(--b);stroke:var(--b)}
.median{stroke-width:1.5;stroke-dasharray:3 3}.median.a{stroke:var(--a)}.median.b{stroke:var(--b)}.axis{stroke:var(--line)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(19rem,100%),1fr));gap:12px}article{padding:.8rem 1rem;border:1px solid var(--line);border-radius:6px;min-width:0}article p{margin:.5rem 0 0}
.value{display:grid;grid-template-columns:minmax(4rem,8rem) 1fr auto;gap:.6rem;align-items:center;margin:.3rem 0}.value span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bars i{display:block;height:7px;min-width:1px;border-radius:2px}.bars i.a{background:var(--a)}.bars i.b{background:var(--b);margin-top:2px}
.themes{display:flex;flex-wrap:wrap;gap:12px}.theme{flex:0 1 auto;max-width:100%;padding:.6rem .8rem;border:1px solid var(--line);border-radius:6px}.theme p{margin:.3rem 0 0}
.row{display:flex;gap:12px}.tiles{display:flex;flex-wrap:wrap;gap:8px;min-width:0}.tiles figure,.near figure{width:104px}.near{flex:none;padding-left:12px;border-left:1px dashed var(--line)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:8px}
figure{margin:0;min-width:0}img,.none{display:block;width:100%;height:96px;object-fit:contain;background:var(--card);border-radius:6px;border-bottom:3px solid transparent}
.a img{border-bottom-color:var(--a)}.b img{border-bottom-color:var(--b)}figcaption{font-size:12px;line-height:1.35;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}figcaption small{white-space:normal}
details{margin:1.5rem 0}details ul{overflow-wrap:anywhere}summary{cursor:pointer;font-weight:600}.wide{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td:nth-child(n+3){font-variant-numeric:tabular-nums}.off td{color:var(--dim)}.on td:first-child{font-weight:600}
@media(max-width:34rem){.tiles figure,.near figure{width:82px}.gauge text{font-size:22px}.value{grid-template-columns:5rem 1fr auto}}
@media print{details{display:none}}
""".replace("\n", "")
