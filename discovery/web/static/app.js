// The discovery pages: a section and its settings in the hash, so that everything seen has an address; and the asset dialog.
import { hideAsset, showAsset } from "./asset.js";
import { duplicates } from "./duplicates.js";
import { novel } from "./novel.js";
import { oneRun, overview, scope } from "./overview.js";
import { el } from "./ui.js";
import { versions } from "./versions.js";

const SECTIONS = { run: oneRun, overview, novel, duplicates, versions };
const main = document.getElementById("main");
const dialog = document.getElementById("detail");
const status = document.getElementById("status");

/** {name, parameters, asset}: what the hash asks for. */
function address() {
  const [name, rest] = location.hash.slice(1).split("?", 2);
  const parameters = new URLSearchParams(rest || "");
  const asset = parameters.get("asset");
  parameters.delete("asset");
  return { name: name in SECTIONS && (name !== "run" || scope) ? name : scope ? "run" : "overview", parameters, asset };
}
function hash(name, parameters, asset) {
  const all = new URLSearchParams(parameters);
  if (asset) all.set("asset", asset);
  return `#${name}${all.size ? `?${all}` : ""}`;
}

let section = ""; // what stands in <main>; an asset opened above it does not draw it again
let turn = 0; // a slow answer must not overwrite a section that was opened later

async function show() {
  const { name, parameters, asset } = address();
  const wanted = hash(name, parameters);
  if (wanted !== section) {
    section = wanted;
    const mine = ++turn;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const waiting = setTimeout(() => mine === turn && main.replaceChildren(skeleton()), 120); // no flicker when the answer is quick
    main.setAttribute("aria-busy", "true");
    let nodes;
    try {
      nodes = await SECTIONS[name](parameters);
    } catch (error) {
      nodes = [failed(error)];
    }
    clearTimeout(waiting);
    if (mine !== turn) return;
    main.replaceChildren(...nodes);
    main.removeAttribute("aria-busy");
    status.textContent = `${name}: ${main.querySelector("h2")?.textContent || "shown"}`;
    scrollTo(0, 0);
  }
  if (asset && address().asset === asset) showAsset(asset, (next) => openAsset(next));
  else if (dialog.open) hideAsset();
}

const skeleton = () => el("div", { class: "state skeleton" }, el("p", {}, "Loading…"), Array.from({ length: 6 }, () => el("span")));
function failed(error) {
  return el("section", { class: "state", role: "alert" }, el("h2", {}, "This could not be read"), el("p", { class: "bad" }, error.message),
    el("button", { class: "more", type: "button", onclick: again }, "Try again"));
}
function again() {
  section = "";
  show();
}

function openAsset(asset) {
  const { name, parameters, asset: now } = address();
  history[now ? "replaceState" : "pushState"](null, "", hash(name, parameters, asset));
  show();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-asset]");
  if (button) openAsset(button.dataset.asset);
});
dialog.addEventListener("close", () => {
  const { name, parameters, asset } = address();
  if (asset) history.replaceState(null, "", hash(name, parameters));
});

document.getElementById("refresh").addEventListener("click", again);
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || dialog.open || event.target.closest("input, select, textarea")) return;
  const tabs = [...document.querySelectorAll("nav a:not([hidden])")];
  if (event.key === "r") again();
  else if (/^[1-9]$/.test(event.key) && tabs[event.key - 1]) tabs[event.key - 1].click();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("run-tab").hidden = !scope;
addEventListener("hashchange", show);
addEventListener("popstate", show);
show();
