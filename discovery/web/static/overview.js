// Overview: key numbers, the newest novel assets, and each run with what it found; and the one run of an Airflow tab.
import { atLeast, count, el, figure, fixed, get, heading, NOTHING_YET, nothing, numbers, outside, paged, picture, place, plural, query, table, tile, when, words } from "./ui.js";

const RUNS = 20;
const STRIP = 8;
const PROGRESS = { ingested: "ingested only", checked: "checked only", embedded: "embedded only", deduplicated: "not scored yet", scored: "not indexed yet" };

export async function overview() {
  const [data, novel] = await Promise.all([get(query("api/overview", { limit: RUNS })), get(`api/novel?limit=${STRIP}`).catch(() => null)]);
  if (!data.runs.length) return [NOTHING_YET()];
  const t = data.totals;
  const list = table(COLUMNS, data.runs.map(row), "Runs");
  return [
    numbers(
      tile("Assets", count(t.assets), t.elements === null ? null : `${count(t.elements)} indexed`),
      tile("Novel, newest run", count(t.novel), t.candidates === null ? null : `of ${count(t.candidates)} new at FDR ${t.fdr}`, "#novel"),
      tile("Duplicate groups", count(t.groups), t.groups === null ? null : `${count(t.exact_groups)} exact, ${count(t.near_groups)} near`, "#duplicates"),
      tile("Recall@10", fixed(t.recall_at_10, 4), t.recall_lower_bound === null ? null : !t.strata.length ? `exact search, ${plural(t.segments, "segment")}` : `at least ${fixed(t.recall_lower_bound, 4)}${t.is_certified ? "" : `, target ${t.recall_target}`}, ${plural(t.segments, "segment")}`),
      tile("Versions", count(t.versions), t.newest_version ? `newest ${t.newest_version}` : "none yet", "#versions")),
    t.is_certified === false ? el("p", { class: "note" }, `The index is certified to a recall of ${fixed(t.recall_lower_bound, 4)} only; its target is ${t.recall_target}. Raise index.m or index.ef_construction and compact it (DAG maintain_index).`) : null,
    novel?.note ? el("p", { class: "note" }, novel.note) : null,
    ...strip(novel),
    heading("Runs", "newest first"),
    list, ...older(list, data),
    ...recallByStratum(t),
    el("p", { class: "soft root" }, "Root ", el("code", {}, data.root)),
  ].filter(Boolean);
}

/** What search was certified to find, of rare pictures as of common ones. */
function recallByStratum(t) {
  if (!t.strata.length) return [];
  const columns = [["pictures"], ["share", "number"], ["about as many alike", "number"], ["asked", "number"], ["recall@10", "number"], ["at least", "number"]];
  const rows = t.strata.map((s) => [
    s.name, `${Math.round(100 * s.share)} %`, s.smallest === s.largest ? count(s.smallest) : `${count(s.smallest)} to ${count(s.largest)}`, count(s.queries),
    fixed(s.recall, 4), fixed(s.lower_bound, 4),
  ]);
  return [heading("Recall of search", `certified for rare pictures as for common ones; target ${t.recall_target}`), table(columns, rows, "Recall of search")];
}

/** The first few novel pictures of a report, on one line. */
function strip(view, hash = "#novel") {
  const rows = (view?.candidates || []).filter((candidate) => candidate.is_novel);
  if (!rows.length) return [];
  return [
    el("h2", {}, view.report.shifted ? "Most novel " : "Newest novel ", el("a", { class: "aside", href: hash }, `all ${count(view.report.novel)} with their nearest neighbours`)),
    el("div", { class: "strip" }, rows.map((candidate) => figure(candidate.asset_id, candidate.name, `novelty ${fixed(candidate.novelty)}`))),
  ];
}

const COLUMNS = [
  ["came in (UTC)"], ["source"], ["listed", "number"], ["new", "number"], ["rejected", "wide"], ["quality", "wide"],
  ["exact / near", "number"], ["novel", "number"], ["indexed", "number"], ["recall@10", "number"],
];
function row(run) {
  return [
    when(run.created_at), run.sources.map((uri) => el("div", {}, place(uri))), count(run.listed), count(run.new_assets), rejected(run), quality(run),
    run.duplicates_id ? el("a", { href: query("#duplicates", { report: run.duplicates_id }) }, `${count(run.exact_groups)} / ${count(run.near_groups)}`) : "–",
    novelCell(run), run.index_id ? count(run.elements) : el("span", { class: "soft" }, PROGRESS[run.state] || "–"), recall(run),
  ];
}
function older(list, first) {
  if (!first.has_more) return [];
  let offset = first.runs.length;
  const more = el("button", { class: "more", type: "button" }, "Show older runs");
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      const page = await get(query("api/overview", { offset, limit: RUNS }));
      list.querySelector("tbody").append(...table(COLUMNS, page.runs.map(row)).querySelectorAll("tbody > tr"));
      offset += page.runs.length;
      more.hidden = !page.has_more;
    } catch (error) {
      more.after(el("span", { class: "bad" }, ` ${error.message}`));
    }
    more.disabled = false;
  });
  return [el("p", { class: "foot" }, more)];
}

const chips = (reasons) => Object.entries(reasons).map(([reason, n]) => el("span", { class: "chip" }, `${count(n)} ${words(reason)}`));

/** How many rows were refused or quarantined; opened, each of them with its reason. */
function rejected(run, open = false) {
  if (!run.rejected && !run.quarantined) return el("span", { class: "soft" }, "none");
  const line = [run.rejected ? chips(run.rejections) : null, run.quarantined ? el("span", { class: "chip" }, `${count(run.quarantined)} quarantined`) : null];
  const list = el("div", { class: "rejections" });
  const box = el("details", { open }, el("summary", {}, count(run.rejected), " ", line), list);
  let isLoaded = false;
  async function fill() {
    if (!box.open || isLoaded) return;
    isLoaded = true;
    try {
      const limit = 100;
      const load = (offset) => get(query(`api/rejections/${run.manifest_id}`, { offset, limit }));
      const first = await load(0);
      list.replaceChildren(...paged(first, load, (page) => [...page.rejections.map(rejection), ...page.quarantined.map(quarantined)], "list", first.total + first.quarantined_total));
    } catch (error) {
      isLoaded = false;
      list.replaceChildren(el("p", { class: "bad" }, error.message));
    }
  }
  box.addEventListener("toggle", fill);
  return box;
}
const rejection = (item) =>
  el("div", { class: "rejection" }, el("span", { class: "chip" }, words(item.reason)), el("div", {}, el("span", { title: item.source_uri }, item.name), item.detail ? el("small", {}, item.detail) : null));
const quarantined = (item) =>
  el("div", { class: "rejection" }, picture(item.asset_id, item.name), el("div", {}, el("span", { title: item.source_uri }, item.name), el("small", {}, `quarantined: ${item.failed.map(words).join(", ")}`)));

function quality(run) {
  if (run.quality_passed === null) return "–";
  return run.quality_passed ? el("span", { class: "good" }, "passed") : el("span", { class: "bad" }, `failed: ${run.failed_expectations.map(words).join(", ")}`);
}
function novelCell(run) {
  if (run.novel === null) return "–";
  if (!run.reference_id) return el("span", { class: "soft", title: run.note }, "no reference yet");
  const text = run.shifted ? "shifted" : `${count(run.novel)} of ${count(run.candidates)}`;
  return el("a", { href: query("#novel", { report: run.novelty_id }), title: run.note || null }, text);
}
function recall(run) {
  return run.recall_at_10 === null ? "–" : el("span", { title: `at least ${fixed(run.recall_lower_bound, 4)}${run.is_certified ? ", certified" : ", below its target"}` }, fixed(run.recall_at_10, 4));
}

// One run of Airflow: its tasks left their records in XCom, which Airflow's own API gives to whoever may see the run.

const airflow = new URLSearchParams(location.search);
export const scope = airflow.get("dag") && airflow.get("run") ? { dag: airflow.get("dag"), run: airflow.get("run") } : null;

/** Record ids that the tasks of the run returned, by stage. */
async function recordsOfRun() {
  const path = `../api/v2/dags/${encodeURIComponent(scope.dag)}/dagRuns/${encodeURIComponent(scope.run)}/taskInstances`;
  const entries = (await get(`${path}/~/xcomEntries?limit=100`)).xcom_entries || [];
  const returned = entries.filter((entry) => entry.key === "return_value");
  const values = await Promise.all(returned.map(async (entry) => {
    const { value } = await get(query(`${path}/${encodeURIComponent(entry.task_id)}/xcomEntries/return_value`, { map_index: entry.map_index })).catch(() => ({}));
    if (typeof value !== "string") return value;
    try { return JSON.parse(value); } catch { return null; }
  }));
  const found = {};
  for (const value of values.flat()) if (value?.stage && value.id) found[value.stage] = value.id;
  return found;
}

export async function oneRun() {
  if (!scope) return overview();
  const ids = await recordsOfRun();
  if (!Object.keys(ids).length) {
    return [nothing("This run has recorded nothing yet", "Its first result appears here when the task that lists the source has finished. The overview shows earlier runs.")];
  }
  const [run, novel, made] = await Promise.all([
    ids.ingest ? get(`api/run/${ids.ingest}`) : null,
    ids.score ? get(query("api/novel", { report: ids.score, show: "novel", limit: STRIP })) : null,
    ids.curate ? get(query(`api/version/${ids.curate}`, { limit: 2 * STRIP })) : null,
  ]);
  return [
    ...(made ? dataset(made) : []),
    ...(run ? [
      heading("What came in", run.sources.join(", ")),
      numbers(
        tile("Listed", count(run.listed), `${plural(run.assets, "asset")}`), tile("New", count(run.new_assets), run.unchanged ? `${count(run.unchanged)} unchanged` : null),
        run.removed ? tile("Gone", count(run.removed), run.moved ? `${count(run.moved)} came up elsewhere` : null) : null,
        tile("Rejected", count(run.rejected), run.quarantined ? `${count(run.quarantined)} quarantined` : null),
        tile("Novel", count(run.novel), run.candidates === null ? null : `of ${count(run.candidates)} new`, query("#novel", { report: run.novelty_id })),
        tile("Duplicate groups", run.duplicates_id ? `${count(run.exact_groups)} / ${count(run.near_groups)}` : "–", "exact / near, all known", query("#duplicates", { report: run.duplicates_id })),
        tile("Recall@10", fixed(run.recall_at_10, 4), run.recall_lower_bound === null ? null : `at least ${fixed(run.recall_lower_bound, 4)}`)),
      el("p", { class: "soft" }, "Quality report: ", quality(run)),
      run.note ? el("p", { class: "note" }, run.note) : null,
      run.rejected || run.quarantined ? el("div", {}, rejected(run)) : null,
    ].filter(Boolean) : []),
    ...strip(novel, query("#novel", { report: ids.score })),
  ];
}
function dataset(made) {
  const v = made.version;
  return [
    el("h2", {}, el("a", { href: query("#versions", { version: v.version_id }) }, `${v.name}@${v.number}`), " ",
      el("small", {}, `${plural(v.assets, "asset")}, ${count(v.leaked)} leaked between splits, selection ${atLeast(v.optimality_bound)} of the optimum`), " ",
      el("span", { class: "aside" }, outside(v.mlflow_url, "MLflow", "not published yet"))),
    el("div", { class: "strip" }, made.members.map((member) => figure(member.asset_id, member.name, member.split))),
  ];
}
