// Search in the data dictionary: every word must be in a table's name, its description, owners, tags, or in a column.
"use strict";
(() => {
  const MOST = 50, tables = window.RAT_TABLES || [];
  const form = document.getElementById("search"), words = document.getElementById("words");
  const found = document.getElementById("found"), said = document.getElementById("said");
  form.hidden = false;  // without scripts there is nothing to search with
  form.addEventListener("submit", (event) => event.preventDefault());

  const line = (href, name, text) => {
    const item = document.createElement("li"), link = document.createElement("a"), rest = document.createElement("small");
    link.href = href;
    link.textContent = name;  // text, never markup
    rest.textContent = text;
    item.append(link, " ", rest);
    return item;
  };
  const look = () => {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean), lines = [];
    const fits = (...texts) => { const all = texts.join(" ").toLowerCase(); return asked.every((one) => all.includes(one)); };
    let more = 0;
    const add = (...one) => { if (lines.length < MOST) lines.push(line(...one)); else more += 1; };
    if (asked.length) {
      for (const table of tables) if (fits(table.name, table.text, ...table.words)) add(table.page, table.name, table.text);
      for (const table of tables) {
        for (const [name, text, id] of table.columns) {
          if (fits(`${table.name}.${name}`, text)) add(`${table.page}#${id}`, `${table.name}.${name}`, text);
        }
      }
    }
    found.replaceChildren(...lines);
    said.textContent = !asked.length ? "" : lines.length ? `${lines.length + more} found${more ? `, the first ${MOST}` : ""}` : "Nothing is called so.";
  };
  words.addEventListener("input", look);
  look();
})();
