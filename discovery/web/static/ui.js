// Elements, formats and links. Data becomes text nodes and attributes of a closed list only, never markup.

/** An element: el("td", {class: "number"}, "text", child, …); empty children are left out. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(typeof child === "number" ? count(child) : child);
  }
  return node;
}

const MISSING = "–";
const known = (value) => value !== null && value !== undefined;
export const count = (value) => (known(value) ? value.toLocaleString("en") : MISSING);
export const fixed = (value, digits = 3) => (known(value) ? value.toFixed(digits) : MISSING);
export const plural = (number, word, many = `${word}s`) => `${count(number)} ${number === 1 ? word : many}`;
export const words = (text) => text.replaceAll("_", " ");

/** A time of the catalog (UTC, ISO 8601) to the minute. */
export function when(text) {
  return text ? el("time", { datetime: text, title: `${text} (UTC)` }, text.slice(0, 16).replace("T", " ")) : MISSING;
}

/** A share as per cent, rounded down, so that a bound is never overstated. */
export const atLeast = (share) => (known(share) ? `≥ ${(Math.floor(share * 1000) / 10).toFixed(1)} %` : MISSING);

export function bytes(size) {
  if (!known(size)) return MISSING;
  const step = size >= 1e6 ? 2 : size >= 1e3 ? 1 : 0;
  return `${(size / 1000 ** step).toFixed(step ? 1 : 0)} ${["B", "kB", "MB"][step]}`;
}

/** The end of a URI, whole on hover. */
export function place(uri) {
  const parts = uri.replace(/\/+$/, "").split("/");
  return el("span", { title: uri }, parts.length > 3 ? `…/${parts.slice(-2).join("/")}` : uri);
}

/** JSON of the API, one shape of error. */
export const get = (path) => ask(path, { headers: { Accept: "application/json" } });

/** The same, of a change. The header tells the server that no other site sent it. */
export const post = (path, body) => ask(path, { method: "POST", headers: { Accept: "application/json", "Content-Type": "application/json", "X-Discovery": "page" }, body: JSON.stringify(body) });

async function ask(path, request) {
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Error("The server does not answer. Check that it runs, then try again.");
  }
  const data = await answer.json().catch(() => ({}));
  if (answer.ok) return data;
  if (answer.status === 401) throw new Error("You are not logged in any more. Log in, then try again.");
  throw new Error(data.error?.message || `The server answered ${answer.status}.`);
}

/** Path with the parameters that have a value. */
export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => known(value) && value !== "" && value !== false);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** The asset's thumbnail as a button that opens it. */
export function picture(assetId, name) {
  const image = el("img", { src: `thumbnail/${assetId}`, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "no-picture" }, "no thumbnail")));
  const label = `${name || assetId.slice(0, 12)}: what is known of it`;
  return el("button", { class: "picture", type: "button", "data-asset": assetId, title: label, "aria-label": label }, image);
}

export function figure(assetId, name, captions, className = "", tag = "") {
  return el("figure", { class: className },
    el("div", { class: "frame" }, picture(assetId, name), tag ? el("span", { class: "tag" }, tag) : null),
    el("figcaption", { class: "name", title: name }, name || assetId.slice(0, 12)),
    [captions].flat().filter(Boolean).map((caption) => el("figcaption", { title: typeof caption === "string" ? caption : null }, caption)));
}

/** Opens an address from inside Airflow's frame, which forbids both new windows and leaving it: a link in Airflow's own document may. */
function throughParent(attributes) {
  const outer = window.parent.document;
  const twin = outer.createElement("a");
  Object.assign(twin, attributes);
  outer.body.append(twin);
  twin.click();
  twin.remove();
}
export const isFramed = window.parent !== window;

function linkTo(url, text, attributes) {
  const link = el("a", { href: url, ...attributes }, text);
  link.addEventListener("click", (event) => {
    if (!isFramed) return;
    event.preventDefault();
    throughParent({ href: url, target: attributes.target || "", rel: attributes.rel || "" });
  });
  return link;
}

/** A link to another site, in a new tab; plain text when the address is none that a browser should open. */
export function outside(url, text, missing = text) {
  if (!/^https?:\/\//.test(url || "")) return el("span", { class: "soft" }, missing);
  return linkTo(url, text, { target: "_blank", rel: "noopener noreferrer" });
}

/** A link to a page of the Airflow that this page stands in. */
export const airflowPage = (path, text) => linkTo(new URL(`../${path}`, location.href).href, text, { class: "button" });

export function copyable(text, shown = text) {
  const button = el("button", { class: "quiet small", type: "button", "aria-label": `Copy ${text}` }, "Copy");
  const code = el("code", { title: text }, shown);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      code.textContent = text; // no right to the clipboard: the whole id, selected, can be copied by hand
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return el("span", { class: "copyable" }, code, " ", button);
}

/** A table; columns are [heading, class]. On a narrow screen each row becomes a block and the headings its labels. */
export function table(columns, rows, label) {
  const head = el("tr", {}, columns.map(([name, kind]) => el("th", { class: kind, scope: "col" }, name)));
  const body = rows.map((cells) => el("tr", {}, cells.map((cell, i) => el("td", { class: columns[i][1], "data-label": columns[i][0] }, cell))));
  return el("div", { class: "scroll" }, el("table", { "aria-label": label }, el("thead", {}, head), el("tbody", {}, body)));
}

export const numbers = (...tiles) => el("dl", { class: "numbers" }, tiles.filter(Boolean));
/** One key number; with a hash it leads to its section. */
export function tile(name, value, line, hash) {
  return el("div", {}, el("dt", {}, hash ? el("a", { href: hash }, name) : name), el("dd", {}, value, line ? el("small", {}, line) : null));
}

export const heading = (text, small) => el("h2", {}, text, small ? [" ", el("small", {}, small)] : null);

/** A list that grows page by page: `load(offset)` gives a page, `draw(page)` its nodes. The first page may be there already. */
export function paged(first, load, draw, className, total) {
  const box = el("div", { class: className });
  const more = el("button", { class: "more", type: "button" }, "Show more");
  const line = el("span", { class: "soft" });
  const foot = el("p", { class: "foot" }, more, " ", line);
  let shown = 0;
  function take(page) {
    const drawn = draw(page);
    box.append(...drawn);
    shown += drawn.length;
    more.hidden = !page.has_more;
    line.textContent = total ? `${count(shown)} of ${count(total)} shown` : "";
    return drawn;
  }
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      take(await load(shown))[0]?.querySelector("button, a")?.focus({ preventScroll: true });
    } catch (error) {
      line.textContent = error.message;
    }
    more.disabled = false;
  });
  take(first);
  return [box, foot];
}

/** Choices of which one holds, as links, so that each has an address. choices: [value, text, hash]. */
export function choice(label, current, choices) {
  return el("div", { class: "choice", role: "group", "aria-label": label },
    choices.map(([value, text, hash]) => el("a", { href: hash, "aria-current": value === current ? "true" : null }, text)));
}

/** A menu of reports; choosing one goes to its address. */
export function menu(label, current, options) {
  const list = el("select", { "aria-label": label }, options.map(([value, text]) => el("option", { value, selected: value === current }, text)));
  list.addEventListener("change", () => { location.hash = list.value; });
  return list;
}

/** What to do when there is nothing to show. */
export function nothing(title, text, command, dag) {
  return el("section", { class: "state nothing" },
    el("h2", {}, title), el("p", {}, text), dag && isFramed ? el("p", {}, airflowPage(`dags/${dag}`, `Open ${dag}`)) : null,
    command ? el("p", {}, "Or on the command line: ", el("code", {}, command)) : null);
}
export const NOTHING_YET = () => nothing(
  "Nothing has come in yet", "Trigger the DAG visual_discovery with a folder or a bucket of pictures. What it finds appears here.",
  "discovery run SOURCE", "visual_discovery");

const MARKS = [["expected", "its like is no news: it will be in every reference"], ["novel", "its like is wanted: it stays out of references, so that more of it is found"], ["junk", "should not be here: it stays out of references, and the next check quarantines it"]];

/** Buttons that say what an asset is; pressed again, the mark is taken back. */
export function marks(assetId, report, mark) {
  const said = el("span", { class: "said", role: "status" });
  const buttons = MARKS.map(([name, why]) => el("button", { class: "quiet small", type: "button", title: `${name}: ${why}`, "data-mark": name, "aria-pressed": String(name === mark), onclick: () => change(name) }, name));
  async function change(name) {
    const wanted = buttons.find((one) => one.dataset.mark === name).getAttribute("aria-pressed") === "true" ? "none" : name;
    buttons.forEach((one) => { one.disabled = true; });
    try {
      const made = await post("api/mark", { report, assets: [assetId], mark: wanted });
      buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.mark === wanted)));
      said.textContent = wanted === "none" ? "taken back" : `by ${made.by}`;
      said.className = "said";
    } catch (error) {
      said.textContent = error.message;
      said.className = "said bad";
    }
    buttons.forEach((one) => { one.disabled = false; });
  }
  return el("div", { class: "marks", role: "group", "aria-label": "What it is" }, buttons, said);
}
