// Versions: every dataset version with its record in MLflow; and one version with its members.
import { atLeast, choice, copyable, count, el, figure, get, heading, nothing, numbers, outside, paged, plural, query, table, tile, when } from "./ui.js";

const PAGE = 60;

export async function versions(parameters) {
  if (parameters.get("version")) return one(parameters);
  const data = await get("api/versions?limit=200");
  if (!data.versions.length) {
    return [nothing("No dataset version yet", "Trigger curate_collection with a collection spec; each version is listed here with its record in MLflow.", "discovery curate spec.yaml", "curate_collection")];
  }
  return [
    heading("Dataset versions", "newest first; a version never changes"),
    table(
      [["version"], ["made (UTC)"], ["assets", "number"], ["splits", "wide"], ["leaked", "number"], ["of the optimum", "number"], ["digest"], ["record"]],
      data.versions.map((row) => [
        el("a", { href: query("#versions", { version: row.version_id }) }, `${row.name}@${row.number}`), when(row.created_at),
        el("span", { title: `of ${plural(row.candidates, "candidate")}` }, count(row.assets)), splits(row.splits), leaked(row.leaked), atLeast(row.optimality_bound),
        copyable(row.digest, row.digest.slice(0, 12)), outside(row.mlflow_url, "MLflow", "not published yet"),
      ]), "Dataset versions"),
    data.has_more ? el("p", { class: "soft" }, `The newest ${count(data.versions.length)} of ${count(data.total)}.`) : null,
  ].filter(Boolean);
}

const leaked = (number) => el("span", { class: number ? "bad" : "good" }, count(number));

const largestFirst = (sizes) => Object.entries(sizes).sort((a, b) => b[1] - a[1]);

/** Shares of the splits as a bar, and their counts. */
function splits(sizes) {
  const parts = largestFirst(sizes);
  const total = parts.reduce((sum, [, n]) => sum + n, 0) || 1;
  const bar = el("span", { class: "splits", "aria-hidden": "true" }, parts.map(() => el("span")));
  [...bar.children].forEach((part, i) => { part.style.flexGrow = String(parts[i][1] / total); });
  return [bar, el("span", { class: "line" }, parts.map(([name, n]) => `${name} ${count(n)}`).join(" · "))];
}

async function one(parameters) {
  const id = parameters.get("version");
  const split = parameters.get("split") || "";
  const load = (offset) => get(query(`api/version/${encodeURIComponent(id)}`, { split, offset, limit: PAGE }));
  const first = await load(0);
  const v = first.version;
  const hash = (name) => query("#versions", { version: id, split: name });
  return [
    el("p", { class: "back" }, el("a", { href: "#versions" }, "All versions")),
    el("h2", {}, `${v.name}@${v.number} `, el("small", {}, "made ", when(v.created_at)), " ", el("span", { class: "aside" }, outside(v.mlflow_url, "MLflow", "not published yet"))),
    numbers(
      tile("Assets", count(v.assets), `of ${plural(v.candidates, "candidate")}`), tile("Leaked between splits", leaked(v.leaked), "copies in two splits"),
      tile("Kept out", count(v.removed_for_leakage), "copies of held-out versions"), tile("Selection", atLeast(v.optimality_bound), "of the optimum")),
    el("p", { class: "soft" }, "Digest ", copyable(v.digest)),
    el("details", { class: "spec" }, el("summary", {}, "Spec that it was made from"), el("pre", {}, JSON.stringify(first.spec, null, 2))),
    el("div", { class: "toolbar" },
      choice("Split", split, [["", `All ${count(v.assets)}`, hash("")], ...largestFirst(v.splits).map(([name, n]) => [name, `${name} ${count(n)}`, hash(name)])])),
    ...(first.total ? paged(first, load, (page) => page.members.map(member), "tiles", first.total) : [el("p", { class: "state" }, "No member in this split.")]),
  ];
}
const member = (item) => figure(item.asset_id, item.name, [`${item.split} · ${item.pick < 0 ? "from the parent" : `pick ${count(item.pick + 1)}`}`]);
