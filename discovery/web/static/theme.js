// Dark or light as Airflow's own page is, when this page stands in its frame; else as the system prefers.
"use strict";
(function () {
  const root = document.documentElement;
  function apply() {
    let dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    try {
      const outer = window.parent !== window && window.parent.document.documentElement.className;
      if (outer && /\b(dark|light)\b/.test(outer)) dark = /\bdark\b/.test(outer);
    } catch (error) { /* another origin: the system's choice stays */ }
    root.dataset.theme = dark ? "dark" : "light";
  }
  apply();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  try {
    if (window.parent !== window) {
      new MutationObserver(apply).observe(window.parent.document.documentElement, { attributes: true, attributeFilter: ["class"] });
    }
  } catch (error) { /* another origin */ }
})();
