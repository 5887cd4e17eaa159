// Novel: candidates of one report, by novelty, by theme or by rarity, each beside its nearest known neighbours.
import { choice, count, el, figure, fixed, get, heading, marks, menu, NOTHING_YET, paged, plural, query } from "./ui.js";

const PAGE = 48;
const SCORES = { knn: "distance to the nearest known", adaptive: "distance of the picture and of its like to the nearest known", mahalanobis: "distance from all that is known", density: "how much lonelier than its neighbours", combined: "mean rank of three scores" };

export async function novel(parameters) {
  const report = parameters.get("report");
  const asked = parameters.get("show");
  const show = ["novel", "rare"].includes(asked) ? asked : "all";
  const theme = show === "novel" ? parameters.get("theme") : null;
  const load = (offset, id = report) => get(query("api/novel", { report: id, show, theme, offset, limit: PAGE }));
  const first = await load(0);
  if (!first.report) return [NOTHING_YET()];
  const mine = first.report;
  const hash = (other, number = null) => query("#novel", { report, show: other === "all" ? "" : other, theme: number });
  const title = mine.shifted ? "A shifted batch" : plural(mine.novel, "novel asset");
  const against = first.references ? `of ${count(mine.candidates)} new, against ${first.reference} (${plural(first.references, "reference")}), FDR ${first.fdr}` : `${plural(mine.candidates, "new asset")}, no reference`;
  const highest = first.highest || 1;
  return [
    heading(title, against),
    el("div", { class: "toolbar" },
      menu("Report", query("#novel", { report: mine.id, show: show === "all" ? "" : show }), options(first, show)),
      choice("Which candidates", show, [["all", `All ${count(mine.candidates)} ranked`, hash("all")], ["novel", `Novel ${count(mine.novel)}`, hash("novel")], ["rare", `Rare ${count(mine.rare)}`, hash("rare")]])),
    first.note ? el("p", { class: "note" }, first.note) : null,
    first.far_out.length ? suspects(first) : null,
    first.themes.length && show !== "rare" ? themes(first, theme, hash) : null,
    el("p", { class: "soft lead" }, explained(first, show)),
    ...(first.total ? paged(first, (offset) => load(offset, mine.id), (page) => page.candidates.map((row) => card(row, highest, mine.id, show, first.themes)), "cards", first.total)
      : [el("p", { class: "state" }, nothing(mine, show))]),
  ].filter(Boolean);
}

function explained(view, show) {
  const errors = view.calibration_rows ? ` ${plural(view.calibration_rows, "known picture")} held out say how novel ordinary ones look; ${view.guarantee === "set" ? "the share of errors holds for this reference however often it is used." : "the share of errors holds on average over batches."}` : "";
  const read = show === "rare"
    ? "Not novel, but lonelier than their neighbours are: rare cases among what is known. Density 1 is typical."
    : `Left the new picture, right its nearest known neighbours. Score: ${SCORES[view.score] || view.score}; higher is more novel. q is the share of false discoveries when everything up to it is called novel.`;
  return read + errors;
}

function nothing(report, show) {
  if (show === "novel" && report.candidates) return "No candidate of this run is called novel. All of them, ranked, are one click away.";
  if (show === "rare" && report.candidates) return "No candidate of this run is called rare.";
  return "This run brought nothing new to score.";
}

function options(view, show) {
  const reports = view.reports.some((report) => report.id === view.report.id) ? view.reports : [view.report, ...view.reports];
  return reports.map((report) => [
    query("#novel", { report: report.id, show: show === "all" ? "" : show }),
    `${report.created_at.slice(0, 16).replace("T", " ")} · ${count(report.novel)} novel of ${count(report.candidates)}${report.shifted ? ", shifted" : ""}`,
  ]);
}

function themes(view, chosen, hash) {
  const one = (theme) => el("a", { class: "theme", href: chosen === String(theme.number) ? hash("novel") : hash("novel", theme.number), "aria-current": chosen === String(theme.number) ? "true" : null },
    el("img", { src: `thumbnail/${theme.exemplar}`, alt: "", loading: "lazy" }),
    el("span", { class: "name" }, theme.words.length ? theme.words.map(([word]) => word).join(", ") : `theme ${theme.number + 1}`),
    el("span", { class: "soft" }, plural(theme.assets, "asset")));
  return el("section", { "aria-label": "Themes" }, el("h3", {}, plural(view.themes.length, "theme")), el("div", { class: "themes" }, view.themes.map(one)));
}

function suspects(view) {
  return el("details", { class: "suspects", open: true }, el("summary", {}, `${plural(view.far_out.length, "known picture")} that may not belong into the reference`),
    el("div", { class: "cards" }, view.far_out.map((row) => el("article", { class: "card" }, figure(row.asset_id, row.name, `novelty ${fixed(row.novelty)}`, "known", "known"), marks(row.asset_id, view.report.id, row.mark)))));
}

function card(row, highest, report, show, themes) {
  const [nearest, ...others] = row.nearest;
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, (row.novelty || 0) / highest)) * 100}%`;
  const theme = themes.find((one) => one.number === row.theme);
  return el("article", { class: row.is_novel ? "card is-novel" : "card" },
    el("div", { class: "pair" },
      figure(row.asset_id, row.name, row.folder),
      nearest ? figure(nearest.asset_id, nearest.name, `distance ${fixed(nearest.distance)}`, "known", "nearest known") : el("p", { class: "soft none" }, "no reference to compare with")),
    others.length ? el("div", { class: "also", "aria-label": "next nearest known" }, others.map((one) => figure(one.asset_id, one.name, fixed(one.distance), "known"))) : null,
    el("div", { class: "facts" },
      el("span", { class: row.is_novel ? "badge novel" : row.is_rare ? "badge rare" : "badge" }, row.is_novel ? "novel" : row.is_rare ? "rare" : `rank ${count(row.rank)}`),
      row.novelty === null ? el("span", { class: "soft" }, "not scored") : [
        bar, el("span", { class: "value" }, fixed(row.novelty)),
        row.percentile === null ? null : el("span", { class: "soft", title: "known pictures that are less novel" }, `above ${(Math.floor(row.percentile * 10) / 10).toFixed(1)} %`),
        row.q_value === null ? null : el("span", { class: "soft", title: `p ${fixed(row.p_value, 4)}` }, `p ${fixed(row.p_value, 4)} · q ${fixed(row.q_value)}`),
        show === "rare" ? el("span", { class: "soft" }, `density ${fixed(row.density, 2)} · q ${fixed(row.rare_q_value)}`) : null,
        theme && show !== "rare" ? el("span", { class: "soft" }, `theme ${theme.words.length ? theme.words[0][0] : theme.number + 1}`) : null]),
    marks(row.asset_id, report, row.mark));
}
