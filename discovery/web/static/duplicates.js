// Duplicates: groups of one report, keeper first, with how near each copy is to it.
import { choice, count, el, figure, fixed, get, heading, menu, NOTHING_YET, paged, plural, query } from "./ui.js";

const PAGE = 40;
const MEMBERS = 6; // of one group in the list; its keeper's page shows more

export async function duplicates(parameters) {
  const report = parameters.get("report");
  const kind = ["near", "exact"].includes(parameters.get("kind")) ? parameters.get("kind") : "";
  const load = (offset, id = report) => get(query("api/duplicates", { report: id, kind, offset, limit: PAGE }));
  const first = await load(0);
  if (!first.report) return [NOTHING_YET()];
  const mine = first.report;
  const hash = (wanted) => query("#duplicates", { report, kind: wanted });
  const reports = first.reports.some((item) => item.id === mine.id) ? first.reports : [mine, ...first.reports];
  return [
    heading(plural(mine.groups, "group"), `${count(first.exact_groups)} with the same bytes or pixels, ${count(first.near_groups)} with near copies; ${plural(first.spare_rows, "spare file")} among ${plural(mine.assets, "asset")}`),
    el("div", { class: "toolbar" },
      menu("Report", query("#duplicates", { report: mine.id, kind }), reports.map((item) => [
        query("#duplicates", { report: item.id, kind }), `${item.created_at.slice(0, 16).replace("T", " ")} · ${plural(item.groups, "group")}`])),
      choice("Which groups", kind, [["", "All", hash("")], ["near", "Near copies", hash("near")], ["exact", "Exact copies", hash("exact")]])),
    el("p", { class: "soft lead" }, "The keeper is the largest, then the sharpest picture of its group; collections take it and leave the others."),
    ...(first.total ? paged(first, (offset) => load(offset, mine.id), (page) => page.groups.map((item) => group(item, MEMBERS)), "groups", first.total)
      : [el("p", { class: "state" }, "No group of this kind.")]),
  ];
}

/** One group of `members`; at most `limit` are drawn. */
export function group(item, limit = Infinity) {
  const drawn = item.members.slice(0, limit);
  const left = Math.max(item.pictures || 0, item.members.length) - drawn.length;
  return el("div", { class: drawn.length > 4 ? "group three" : drawn.length > 2 ? "group two-wide" : "group" }, drawn.map((member) => {
    const isKeeper = member.asset_id === item.keeper_id;
    const size = member.width_px ? `${member.width_px} × ${member.height_px}` : "";
    const relation = isKeeper ? el("span", { title: member.kept_because ? `kept: ${member.kept_because}` : "" }, `keeper · ${size}`)
      : el("span", { title: member.transformation }, member.relation.replaceAll("_", " "));
    const figures = isKeeper ? "" : el("span", { title: "share of the picture that differs when it is laid on the keeper; PDQ hash: bits of 256 that differ; cosine of the vectors" },
      `differs ${fixed(member.difference)} · PDQ ${count(member.pdq_distance)} · cosine ${fixed(member.cosine)}`);
    const copies = member.source_rows > 1 ? el("span", { title: member.sources.join("\n") }, `${count(member.source_rows)} files, same bytes`) : "";
    return figure(member.asset_id, member.name, [relation, figures, copies], isKeeper ? "keeper" : "", isKeeper ? "keeper" : "");
  }), left > 0 ? el("p", { class: "soft left" }, `and ${count(left)} more`) : null);
}
