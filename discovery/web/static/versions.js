// Versions: every dataset version with its record in MLflow; and one version with its members.
import { atLeast, bytes, choice, copyable, count, el, figure, fixed, get, heading, nothing, numbers, outside, paged, plural, query, table, tile, when, words } from "./ui.js";

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
        [el("a", { href: query("#versions", { version: row.version_id }) }, `${row.name}@${row.number}`), " ", ...standing(row)], when(row.created_at),
        el("span", { title: `of ${plural(row.candidates, "candidate")}` }, count(row.assets)), splits(row.splits), leaked(row.leaked), atLeast(row.optimality_bound),
        copyable(row.digest, row.digest.slice(0, 12)), outside(row.mlflow_url, "MLflow", "not published yet"),
      ]), "Dataset versions"),
    data.has_more ? el("p", { class: "soft" }, `The newest ${count(data.versions.length)} of ${count(data.total)}.`) : null,
  ].filter(Boolean);
}

/** Aliases that point at a version, and that it was yanked. */
const standing = (row) => [
  ...row.aliases.map((alias) => el("span", { class: "chip" }, alias)),
  ...(row.yanked ? [el("span", { class: "chip bad", title: row.yanked }, "yanked")] : []),
];

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
    el("h2", {}, v.number ? `${v.name}@${v.number} ` : `${v.name}, a preview without a number `, ...standing(v), " ", el("small", {}, "made ", when(v.created_at)), " ", el("span", { class: "aside" }, outside(v.mlflow_url, "MLflow", "not published yet"))),
    ...(v.yanked ? [el("p", { class: "bad" }, `Yanked: ${v.yanked}. Do not use this version.`)] : []),
    numbers(
      tile("Assets", count(v.assets), `of ${plural(v.candidates, "candidate")}`), tile("Leaked between splits", leaked(v.leaked), "copies in two splits"),
      tile("Kept out", count(v.removed_for_leakage), "copies of held-out versions"), tile("Selection", atLeast(v.optimality_bound), "of the optimum"), coverage(first.facts.coverage), size(first.facts.size_bytes)),
    el("p", { class: "soft" }, "Digest ", copyable(v.digest), " · ", checked(first.check)),
    chosen(first),
    certificate(first.facts.certificate),
    asking(id, parameters.get("why") || ""),
    el("details", { class: "spec" }, el("summary", {}, "Spec that it was made from"), el("pre", {}, JSON.stringify(first.spec, null, 2))),
    el("div", { class: "toolbar" },
      choice("Split", split, [["", `All ${count(v.assets)}`, hash("")], ...largestFirst(v.splits).map(([name, n]) => [name, `${name} ${count(n)}`, hash(name)])])),
    ...(first.total ? paged(first, load, (page) => page.members.map(member), "tiles", first.total) : [el("p", { class: "state" }, "No member in this split.")]),
  ];
}
const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;
const coverage = (found) => (found?.radius === null || found?.radius === undefined ? null : tile("Coverage", fixed(found.radius), found.beyond ? `distance; at most ${percent(found.beyond)} of candidates are farther` : "distance of the farthest candidate to a member"));
const size = (found) => (found ? tile("Size", bytes(found), "of the originals") : null);

function checked(check) {
  if (!check) return "not checked yet";
  const missed = (names) => names.map(words).join(", ");
  return [el("span", { class: check.passed ? "good" : "bad" }, check.passed ? "the check passed" : `the check failed, it missed: ${missed(check.failed)}`),
    check.warnings.length ? `, warned since it missed: ${missed(check.warnings)}` : ""];
}

/** How members came to be chosen: parts, quotas, and what each rule left out. */
function chosen(data) {
  const parts = (data.facts.parts || []).filter((part) => part.name);
  const quotas = data.facts.quotas || [];
  if (!data.left_out.length && !parts.length) return null;
  return el("details", { class: "spec" }, el("summary", {}, `How it was chosen: ${count(data.left_out.reduce((sum, row) => sum + row.assets, 0))} assets were left out`),
    parts.length ? table([["part"], ["by"], ["candidates", "number"], ["asked", "number"], ["picked", "number"], ["of the optimum", "number"]],
      parts.map((part) => [part.name, words(part.method), count(part.candidates), count(part.asked), count(part.picked), atLeast(part.optimality_bound)]), "Parts of the mix") : null,
    quotas.length ? el("ul", {}, quotas.map((quota) => el("li", {}, `${quota.cost === null ? `What the quota by ${quota.by} cost was not measured` : `The quota by ${quota.by} cost ${percent(quota.cost)} of the objective`}${quota.part ? ` (part ${quota.part})` : ""}.`))) : null,
    table([["rule"], ["what it says"], ["assets", "number"]], data.left_out.map((row) => [words(row.rule), row.says, count(row.assets)]), "What was left out"));
}

/** How far splits are apart, and that nothing leaks. */
function certificate(found) {
  if (!found) return null;
  const across = found.across_splits;
  return el("details", { class: "spec" }, el("summary", {}, "Certificate of its splits"),
    el("ul", {},
      el("li", {}, `Kept together: ${found.keep_together.map(words).join(", ")}${found.stratify ? `; every split has its share of every ${found.stratify}` : ""}.`),
      across ? el("li", {}, `The two members most alike in different splits have a cosine of ${fixed(across.largest_similarity)}; ${across.recall === 1 ? "all pairs were compared" : `${count(across.asked)} of ${count(across.members)} members were compared with all others`}.`,
        el("span", { class: "tiles" }, across.assets.map((asset, i) => figure(asset, across.splits[i], [across.splits[i]])))) : null,
      found.duplicates.recall === null ? null : el("li", {}, `Copies: ${percent(found.duplicates.recall, 1)} of planted ones are proposed, at least ${percent(found.duplicates.recall_lower_bound, 1)}.`),
      found.against.map((one) => el("li", {}, `Against ${one.named}: `, leaked(one.leaked), ` leak (${count(one.same_bytes)} same bytes, ${count(one.same_pixels)} same pixels, ${count(one.verified_copies)} verified copies, ${count(one.chains)} by chains); ${count(one.removed)} were kept out for it.`))));
}

/** Why is an asset in, or not? By id, its first digits, or URI. */
function asking(id, asked) {
  const field = el("input", { type: "search", name: "why", value: asked, "aria-label": "Asset id or URI", placeholder: "asset id, its first digits, or URI", size: "48" });
  const answer = el("div", { class: "answer", role: "status" });
  const form = el("form", { class: "toolbar why" }, el("label", {}, "Why is it in, or not? ", field), el("button", { class: "quiet", type: "submit" }, "Ask"));
  async function ask(text) {
    answer.replaceChildren(el("p", { class: "soft" }, "Looking…"));
    try {
      const found = await get(query(`api/version/${encodeURIComponent(id)}/why`, { asset: text }));
      answer.replaceChildren(
        el("p", {}, el("strong", { class: found.is_member ? "good" : "bad" }, found.is_member ? `In it, in ${found.split}` : "Not in it"), `: ${found.sentence}.`),
        found.asset_id ? el("div", { class: "tiles" }, figure(found.asset_id, found.source_uri.split("/").pop(), ["asked for"]), found.evidence ? figure(found.evidence, found.evidence_uri.split("/").pop(), ["by which it was decided"]) : null) : null,
        table([["stage"], ["what happened"], ["record"]], found.steps.map((step) => [step.stage, step.what, step.record_id ? copyable(step.record_id, step.record_id.slice(0, 12)) : ""]), "The way of this asset"));
    } catch (error) {
      answer.replaceChildren(el("p", { class: "bad" }, error.message));
    }
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (text) ask(text);
  });
  if (asked) ask(asked);
  return el("section", {}, form, answer);
}

const member = (item) => figure(item.asset_id, item.name, [`${item.split} · ${item.pick < 0 ? "from the parent" : `pick ${count(item.pick + 1)}`}`]);
