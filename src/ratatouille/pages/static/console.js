// The console without this file works too. It keeps the queries of this tab in the tab, and runs one with Ctrl+Enter.
"use strict";
(() => {
  const KEY = "rat-console-queries", MOST = 30, LONGEST = 20000;
  const form = document.getElementById("ask"), sql = document.getElementById("sql");
  const box = document.getElementById("history"), list = box.querySelector("ol");

  const kept = () => {
    try {
      const said = JSON.parse(sessionStorage.getItem(KEY) || "[]");
      return Array.isArray(said) ? said.filter((one) => typeof one === "string") : [];
    } catch { return []; }
  };
  const keep = (queries) => {
    try { sessionStorage.setItem(KEY, JSON.stringify(queries)); } catch { /* a full or closed store: no history */ }
  };
  const show = () => {
    const queries = kept();
    box.hidden = queries.length === 0;
    list.replaceChildren(...queries.map((query) => {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.className = "plain";
      button.textContent = query;  // text, never markup
      button.addEventListener("click", () => { sql.value = query; sql.focus(); window.scrollTo(0, 0); });
      item.append(button);
      return item;
    }));
  };

  form.addEventListener("submit", () => {
    const query = sql.value.trim();
    if (query && query.length <= LONGEST) keep([query, ...kept().filter((one) => one !== query)].slice(0, MOST));
  });
  sql.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });
  document.getElementById("forget").addEventListener("click", () => { keep([]); show(); });
  show();
})();
