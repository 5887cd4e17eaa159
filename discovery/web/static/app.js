// The discovery pages: four sections by hash, an asset dialog. Data becomes text nodes only, never markup.
const main = document.getElementById("main");
const dialog = document.getElementById("detail");
const detail = document.getElementById("detail-body");
const SECTIONS = { overview, novel, duplicates, versions };

/** An element: el("td", {class: "number"}, "text", child, …). */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (typeof child === "number" ? count(child) : child)));
  return node;
}
const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const when = (text) => (text ? text.slice(0, 16).replace("T", " ") : "–");
const short = (id) => el("code", { title: id }, id.slice(0, 12));
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

async function get(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(data.error?.message || (answer.status === 401 ? "You are not logged in." : `The server answered ${answer.status}.`));
  return data;
}

function picture(assetId, name) {
  const image = el("img", { src: `thumbnail/${assetId}`, alt: name, loading: "lazy" });
  return el("button", { class: "picture", title: `${name}: what is known of it`, onclick: () => openAsset(assetId) }, image);
}
const figure = (assetId, name, caption, className = "") =>
  el("figure", { class: className }, picture(assetId, name), el("figcaption", { title: name }, name), caption ? el("figcaption", {}, caption) : null);

/** A link to another site. Airflow's frame forbids new windows, but a link made in Airflow's own document may open one. */
function outside(url, text) {
  if (!/^https?:\/\//.test(url || "")) return el("span", { class: "soft" }, text);
  const link = el("a", { href: url, target: "_blank", rel: "noopener" }, text);
  link.addEventListener("click", (event) => {
    if (window.parent === window) return;
    event.preventDefault();
    const outer = window.parent.document;
    const twin = outer.createElement("a");
    Object.assign(twin, { href: url, target: "_blank", rel: "noopener" });
    outer.body.append(twin);
    twin.click();
    twin.remove();
  });
  return link;
}

function table(columns, rows) {
  const head = el("tr", {}, ...columns.map(([name, kind]) => el("th", { class: kind, scope: "col" }, name)));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell, i) => el("td", { class: columns[i][1] }, ...(Array.isArray(cell) ? cell : [cell])))));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}
const empty = (text) => el("p", { class: "state" }, text);
const NOTHING = "Nothing has come in yet. Trigger the DAG visual_discovery with a folder or a bucket, or run `discovery run SOURCE`, and look here again.";

/** A list that grows page by page. */
function paged(load, draw) {
  const box = el("div");
  const more = el("button", { class: "more" }, "Show more");
  let offset = 0;
  async function next() {
    more.disabled = true;
    const page = await load(offset);
    const drawn = draw(page, offset === 0);
    box.append(...drawn);
    offset += drawn.length;
    more.hidden = !page.has_more;
    more.disabled = false;
  }
  more.addEventListener("click", () => next().catch(failed));
  return { box, more, next };
}

async function overview() {
  const data = await get("api/overview?limit=30");
  if (!data.runs.length) return [empty(NOTHING)];
  const t = data.totals;
  const number = (name, value, line) => el("div", {}, el("dt", {}, name), el("dd", {}, value, line ? el("small", {}, line) : null));
  const recall = t.recall_at_10 === null ? "–" : fixed(t.recall_at_10, 4);
  return [
    el("dl", { class: "numbers" },
      number("Assets", count(t.assets)),
      number("Novel, newest run", count(t.novel), t.candidates === null ? null : `of ${count(t.candidates)} at FDR ${t.fdr}`),
      number("Duplicate groups", count(t.groups), `${count(t.exact_groups)} exact, ${count(t.near_groups)} near`),
      number("Recall@10", recall, t.recall_lower_bound === null ? null : `at least ${fixed(t.recall_lower_bound, 4)}, ${plural(t.segments, "segment")}`),
      number("Versions", count(t.versions), t.newest_version)),
    el("h2", {}, "Runs ", el("small", {}, "newest first")),
    table(
      [["came in"], ["source", "wide"], ["listed", "number"], ["new", "number"], ["rejected", "wide"], ["quality"], ["near copies", "number"], ["novel", "number"], ["recall@10", "number"]],
      data.runs.map((run) => [
        when(run.created_at), run.sources.join(", "), count(run.listed), count(run.new_assets), rejectedCell(run), qualityCell(run),
        count(run.near_groups), novelCell(run), fixed(run.recall_at_10, 4),
      ])),
  ];
}
function rejectedCell(run) {
  if (!run.rejected) return "none";
  const box = el("details", {}, el("summary", {}, `${count(run.rejected)}: ${Object.entries(run.rejections).map(([reason, n]) => `${n} ${reason}`).join(", ")}`));
  box.addEventListener("toggle", async () => {
    if (!box.open || box.children.length > 1) return;
    const list = await get(`api/rejections/${run.manifest_id}`);
    box.append(...list.rejections.map((row) => el("div", {}, el("code", {}, row.source_uri), ` ${row.reason}`, row.detail ? el("span", { class: "soft" }, ` ${row.detail}`) : null)));
  });
  return box;
}
const qualityCell = (run) =>
  run.quality_passed === null ? "–" : el("span", { class: run.quality_passed ? "good" : "bad" }, run.quality_passed ? "passed" : `failed: ${run.failed_expectations.join(", ")}`, run.quarantined ? `, ${run.quarantined} quarantined` : "");
const novelCell = (run) => (run.shifted ? "shifted" : run.novel === null ? "–" : el("a", { href: "#novel" }, count(run.novel)));

async function novel() {
  const first = await get("api/novel?limit=48");
  if (!first.report) return [empty(NOTHING)];
  const report = first.report;
  const list = paged((offset) => (offset ? get(`api/novel?report=${report.id}&offset=${offset}&limit=48`) : Promise.resolve(first)), (page) => page.candidates.map(card));
  list.box.className = "cards";
  await list.next();
  return [
    el("h2", {}, report.shifted ? "A shifted batch " : `${plural(report.novel, "novel asset")} `,
      el("small", {}, `of ${count(report.candidates)} new ones against ${first.reference} (${count(first.references)} references), false-discovery rate ${first.fdr}, ${when(report.created_at)}`)),
    first.note ? el("p", { class: "note" }, first.note) : null,
    el("p", { class: "soft" }, "Left the new picture, right its nearest known neighbour. Higher novelty is more novel; q is the share of false discoveries when everything up to it is called novel."),
    list.box, list.more,
  ].filter(Boolean);
}
function card(row) {
  const nearest = row.nearest;
  return el("article", { class: "card" },
    el("div", { class: "pair" },
      figure(row.asset_id, row.name, row.folder),
      nearest ? figure(nearest.asset_id, nearest.name, `distance ${fixed(nearest.distance)}`) : el("p", { class: "soft" }, "no reference")),
    el("div", { class: "facts" },
      el("span", { class: row.is_novel ? "badge novel" : "badge" }, row.is_novel ? "novel" : `rank ${row.rank}`),
      el("span", {}, `novelty ${fixed(row.novelty)}`), el("span", { class: "soft" }, `p ${fixed(row.p_value, 4)}  q ${fixed(row.q_value)}`)));
}

async function duplicates() {
  const first = await get("api/duplicates?limit=30");
  if (!first.report) return [empty(NOTHING)];
  const list = paged((offset) => (offset ? get(`api/duplicates?report=${first.report.id}&offset=${offset}&limit=30`) : Promise.resolve(first)), (page) => page.groups.map(group));
  await list.next();
  return [
    el("h2", {}, `${plural(first.report.groups, "group")} `, el("small", {}, `${count(first.exact_groups)} with the same bytes or pixels, ${count(first.near_groups)} with near copies, among ${count(first.report.assets)} assets`)),
    el("p", { class: "soft" }, "The keeper (green) is the largest, then the sharpest picture of its group; collections take it and leave the others."),
    list.box, list.more,
  ];
}
function group(item) {
  return el("div", { class: "group" }, ...item.members.map((member) => {
    const relation = member.relation === "near" ? `near: cosine ${fixed(member.cosine)}, ${member.pdq_distance} bits` : member.relation.replace("_", " ");
    const copies = member.source_rows > 1 ? ` · ${member.source_rows} files` : "";
    const keeper = member.asset_id === item.group_id;
    return figure(member.asset_id, member.name, (keeper ? `keeper · ${member.width_px} × ${member.height_px}` : relation) + copies, keeper ? "keeper" : "");
  }));
}

async function versions() {
  const data = await get("api/versions?limit=200");
  if (!data.versions.length) return [empty("No dataset version yet. Trigger curate_collection with a collection spec, or run `discovery curate spec.yaml`.")];
  return [
    el("h2", {}, "Dataset versions ", el("small", {}, "newest first; a version never changes")),
    table(
      [["version"], ["made"], ["assets", "number"], ["splits", "wide"], ["leaked", "number"], ["of the optimum", "number"], ["digest"], ["record"]],
      data.versions.map((row) => [
        `${row.name}@${row.number}`, when(row.created_at), count(row.assets), Object.entries(row.splits).map(([name, n]) => `${name} ${count(n)}`).join(", "),
        el("span", { class: row.leaked ? "bad" : "good" }, count(row.leaked)), row.optimality_bound === null ? "–" : `≥ ${(100 * row.optimality_bound).toFixed(0)} %`,
        short(row.digest), outside(row.mlflow_url, row.mlflow_url ? "MLflow" : "not published yet"),
      ])),
  ];
}

async function openAsset(assetId) {
  detail.replaceChildren(el("p", { class: "state" }, "Loading…"));
  if (!dialog.open) dialog.showModal();
  try {
    const a = await get(`api/asset/${assetId}`);
    const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, ...value)];
    const measures = Object.entries(a.quality?.measures || {}).map(([name, value]) => `${name} ${fixed(value)}`).join(" · ");
    const neighbours = a.novelty?.nearest || [];
    detail.replaceChildren(
      el("h2", {}, a.name),
      el("div", { class: "two" }, el("div", {}, picture(a.asset_id, a.name)),
        el("dl", { class: "plain" },
          ...fact("asset", el("code", {}, a.asset_id)), ...fact("sources", ...a.sources.map((uri) => el("div", {}, uri))),
          ...fact("picture", `${a.format} ${count(a.width_px)} × ${count(a.height_px)}, ${count(a.size_bytes)} bytes`), ...fact("first seen", when(a.first_seen)),
          ...fact("quality", a.quality ? (a.quality.is_quarantined ? `quarantined: ${a.quality.failed.join(", ")}` : "accepted") : "–"), ...fact("measures", measures || "–"),
          ...fact("novelty", a.novelty && a.novelty.novelty !== null ? `${fixed(a.novelty.novelty)}, p ${fixed(a.novelty.p_value, 4)}, q ${fixed(a.novelty.q_value)}${a.novelty.is_novel ? " – novel" : ""}` : "not scored"),
          ...fact("copies", a.group && a.group.members.length > 1 ? `${a.group.members.length - 1} in its group` : "none known"),
          ...fact("member of", ...(a.versions.length ? a.versions.map((v) => el("div", {}, `${v.name}@${v.number}, ${v.split} – ${v.reason}`)) : ["no version"])))),
      ...(neighbours.length ? [el("h2", {}, "Nearest known before it came"), el("div", { class: "group" }, ...neighbours.map((n) => figure(n.asset_id, n.name, `distance ${fixed(n.distance)}`)))] : []),
      ...(a.group && a.group.members.length > 1 ? [el("h2", {}, "Its group"), group({ group_id: a.group.group_id, members: a.group.members })] : []));
  } catch (error) {
    detail.replaceChildren(el("p", { class: "state bad" }, error.message));
  }
}
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

function failed(error) {
  main.replaceChildren(el("p", { class: "state bad", role: "alert" }, error.message));
}
let shown = 0;
async function show() {
  const name = location.hash.slice(1) in SECTIONS ? location.hash.slice(1) : "overview";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const mine = ++shown; // a slow answer must not overwrite a section that was opened later
  main.replaceChildren(el("p", { class: "state" }, "Loading…"));
  try {
    const nodes = await SECTIONS[name]();
    if (mine === shown) main.replaceChildren(...nodes);
  } catch (error) {
    if (mine === shown) failed(error);
  }
}
addEventListener("hashchange", show);
show();
