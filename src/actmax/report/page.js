"use strict";
// Sorts a table by the column whose head is pressed: numbers by value, the rest as text; what is missing goes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = [...table.tBodies[0].rows].map((row) => {
      const cell = row.cells[place], key = cell.dataset.key, text = cell.innerText.trim();
      return { row, key: key === undefined ? undefined : Number(key), text, none: text === "–" || text === "" };
    });
    keyed.sort((a, b) => {
      if (a.none !== b.none) return a.none ? 1 : -1;
      const order = a.key !== undefined && b.key !== undefined
        ? a.key - b.key : a.text.localeCompare(b.text, undefined, { numeric: true });
      return up ? order : -order;
    });
    table.tBodies[0].append(...keyed.map((one) => one.row));
  }));
}
// A figure can be saved wherever the page is: what is in it is what lies in figures/.
for (const link of document.querySelectorAll("a.save")) link.href = link.closest("figure").querySelector("img").src;
// Paper shows what is folded (so does page.css, where a browser knows ::details-content).
const opened = [];
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; opened.push(one); }
});
addEventListener("afterprint", () => { for (const one of opened.splice(0)) one.open = false; });
