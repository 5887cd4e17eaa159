// Novel: candidates of one report, most novel first, each beside its nearest known neighbour.
import { choice, count, el, figure, fixed, get, heading, menu, NOTHING_YET, paged, plural, query } from "./ui.js";

const PAGE = 48;

export async function novel(parameters) {
  const report = parameters.get("report");
  const onlyNovel = parameters.get("show") === "novel";
  const load = (offset, id = report) => get(query("api/novel", { report: id, only_novel: onlyNovel, offset, limit: PAGE }));
  const first = await load(0);
  if (!first.report) return [NOTHING_YET()];
  const mine = first.report;
  const hash = (show) => query("#novel", { report, show });
  const title = mine.shifted ? "A shifted batch" : plural(mine.novel, "novel asset");
  const against = first.references ? `of ${count(mine.candidates)} new, against ${first.reference} (${plural(first.references, "reference")}), FDR ${first.fdr}` : `${plural(mine.candidates, "new asset")}, no reference`;
  const highest = first.highest || 1;
  return [
    heading(title, against),
    el("div", { class: "toolbar" },
      menu("Report", query("#novel", { report: mine.id, show: onlyNovel ? "novel" : "" }), options(first, onlyNovel)),
      choice("Which candidates", onlyNovel ? "novel" : "", [["", `All ${count(mine.candidates)} ranked`, hash("")], ["novel", `Novel ${count(mine.novel)}`, hash("novel")]])),
    first.note ? el("p", { class: "note" }, first.note) : null,
    el("p", { class: "soft lead" }, "Left the new picture, right its nearest known neighbour. Higher novelty is more novel; q is the share of false discoveries when everything up to it is called novel."),
    ...(first.total ? paged(first, (offset) => load(offset, mine.id), (page) => page.candidates.map((row) => card(row, highest)), "cards", first.total)
      : [el("p", { class: "state" }, onlyNovel && mine.candidates ? "No candidate of this run is called novel. All of them, ranked, are one click away." : "This run brought nothing new to score.")]),
  ].filter(Boolean);
}

function options(view, onlyNovel) {
  const reports = view.reports.some((report) => report.id === view.report.id) ? view.reports : [view.report, ...view.reports];
  return reports.map((report) => [
    query("#novel", { report: report.id, show: onlyNovel ? "novel" : "" }),
    `${report.created_at.slice(0, 16).replace("T", " ")} · ${count(report.novel)} novel of ${count(report.candidates)}${report.shifted ? ", shifted" : ""}`,
  ]);
}

function card(row, highest) {
  const nearest = row.nearest;
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, (row.novelty || 0) / highest)) * 100}%`;
  return el("article", { class: row.is_novel ? "card is-novel" : "card" },
    el("div", { class: "pair" },
      figure(row.asset_id, row.name, row.folder),
      nearest ? figure(nearest.asset_id, nearest.name, `distance ${fixed(nearest.distance)}`, "known", "nearest known") : el("p", { class: "soft none" }, "no reference to compare with")),
    el("div", { class: "facts" },
      el("span", { class: row.is_novel ? "badge novel" : "badge" }, row.is_novel ? "novel" : `rank ${count(row.rank)}`),
      row.novelty === null ? el("span", { class: "soft" }, "not scored") : [
        bar, el("span", { class: "value" }, fixed(row.novelty)),
        row.q_value === null ? null : el("span", { class: "soft", title: `p ${fixed(row.p_value, 4)}` }, `q ${fixed(row.q_value)}`)]));
}
