// The asset dialog: everything that is known of one picture, with the way to the one before and after it.
import { group } from "./duplicates.js";
import { bytes, copyable, count, el, figure, fixed, get, query, when, words } from "./ui.js";

const dialog = document.getElementById("detail");
const body = document.getElementById("detail-body");
let order = []; // assets of the section behind, as they stand there
let current = "";

const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, value)];

/** Shows an asset; `step(assetId)` is called to go to another. */
export async function showAsset(assetId, step) {
  current = assetId;
  if (!dialog.open) {
    order = [...new Set([...document.querySelectorAll("main figure:not(.known) [data-asset]")].map((node) => node.dataset.asset))];
    dialog.showModal();
  }
  body.replaceChildren(bar(assetId, "Loading…", step));
  try {
    const asset = await get(`api/asset/${encodeURIComponent(assetId)}`);
    if (current === assetId) body.replaceChildren(bar(assetId, asset.name, step), ...about(asset));
  } catch (error) {
    if (current === assetId) body.replaceChildren(bar(assetId, "Asset", step), el("p", { class: "bad" }, error.message));
  }
}
export function hideAsset() {
  current = "";
  dialog.close();
}

function bar(assetId, name, step) {
  const at = order.indexOf(assetId);
  const go = (to, text, key) => el("button", { class: "quiet", type: "button", disabled: at < 0 || !order[to], title: `${text} (${key})`, onclick: () => step(order[to]) }, text);
  return el("div", { class: "bar-top" }, el("h2", { id: "detail-name" }, name),
    el("span", { class: "buttons" }, at >= 0 && order.length > 1 ? [go(at - 1, "Previous", "←"), go(at + 1, "Next", "→")] : null,
      el("button", { class: "quiet close", type: "button", title: "Close (Esc)", onclick: () => dialog.close() }, "Close")));
}
dialog.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const text = { ArrowLeft: "Previous", ArrowRight: "Next" }[event.key];
  const button = text && [...body.querySelectorAll(".bar-top button")].find((node) => node.textContent === text && !node.disabled);
  if (button) button.click();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

function about(a) {
  const measures = Object.entries(a.quality?.measures || {});
  const nearest = a.novelty?.nearest || [];
  const copies = a.group && a.group.members.length > 1;
  const image = el("img", { src: `thumbnail/${a.asset_id}`, alt: a.name });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "no-picture" }, "no thumbnail")));
  return [
    el("div", { class: "two" },
      el("div", { class: "picture large" }, image),
      el("dl", { class: "plain" },
        fact("asset", copyable(a.asset_id, `${a.asset_id.slice(0, 16)}…`)),
        fact(a.sources.length === 1 ? "source" : "sources", a.sources.map((uri) => el("div", {}, uri))),
        fact("picture", `${a.format} ${count(a.width_px)} × ${count(a.height_px)} px, ${bytes(a.size_bytes)}`),
        fact("first seen", when(a.first_seen)),
        fact("quality", !a.quality ? "not checked" : a.quality.is_quarantined ? el("span", { class: "bad" }, `quarantined: ${a.quality.failed.map(words).join(", ")}`) : el("span", { class: "good" }, "accepted")),
        fact("novelty", a.novelty && a.novelty.novelty !== null
          ? [a.novelty.is_novel ? [el("span", { class: "badge novel" }, "novel"), " "] : a.novelty.is_rare ? [el("span", { class: "badge rare" }, "rare"), " "] : null, `${fixed(a.novelty.novelty)}`, el("span", { class: "soft" }, `  p ${fixed(a.novelty.p_value, 4)} · q ${fixed(a.novelty.q_value)} · FDR ${a.novelty.fdr}`)]
          : "not scored: it came before there was a reference, or is a copy"),
        fact("copies", copies ? `${count(a.group.members.length - 1)} in its group, this one is ${a.group.relation === "keeper" ? "the keeper" : words(a.group.relation)}` : "none known"),
        fact("marked", a.marks.length ? a.marks.map((said) => el("div", {}, said.mark === "none" ? "taken back" : said.mark, el("span", { class: "soft" }, ` by ${said.by}, `, when(said.at)), said.comment ? ` ${said.comment}` : null)) : "by nobody"),
        fact("member of", a.versions.length
          ? a.versions.map((v) => el("div", {}, el("a", { href: query("#versions", { version: v.version_id }) }, `${v.name}@${v.number}`), el("span", { class: "soft" }, ` ${v.split} · ${v.reason}`)))
          : "no version"))),
    measures.length ? el("ul", { class: "measures" }, measures.map(([name, value]) => el("li", {}, el("span", { class: "soft" }, words(name)), fixed(value)))) : null,
    nearest.length ? [el("h3", {}, "Nearest known when it came"), el("div", { class: "tiles" }, nearest.map((n) => figure(n.asset_id, n.name, `distance ${fixed(n.distance)}`)))] : null,
    copies ? [el("h3", {}, "Its group"), group({ keeper_id: a.group.members[0].asset_id, members: a.group.members })] : null,
  ].flat().filter(Boolean);
}
