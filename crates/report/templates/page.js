"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const named = () => { button.textContent = dark() ? "light" : "dark"; button.setAttribute("aria-label", "use the " + button.textContent + " theme"); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; named(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
  named();

  // What is folded away on a screen is opened for paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("#results details:not([open]), #layers details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => { opened.forEach((details) => { details.open = false; }); });

  const table = document.getElementById("edits");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = rows.map((row) => row.textContent.toLowerCase());
  const [find, cell, failed, count] = ["edit-find", "edit-cell", "edit-failed", "edit-count"].map((id) => document.getElementById(id));
  const filter = () => {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, at) => {
      const fits = wanted.every((word) => words[at].includes(word))
        && (!cell || !cell.value || row.dataset.cell === cell.value)
        && (!failed || !failed.checked || row.classList.contains("failed"));
      row.hidden = !fits;
      shown += fits;
    });
    count.textContent = shown + " of " + rows.length;
  };
  [find, cell, failed].forEach((input) => { if (input) input.addEventListener("input", filter); });
  document.querySelector(".controls").hidden = false;
  filter();

  // A click sorts, another the other way round; a third restores the order of the data set.
  const value = (row, at) => row.cells[at].dataset.sort ?? row.cells[at].textContent;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    const sort = document.createElement("button");
    sort.type = "button";
    sort.textContent = head.textContent;
    head.replaceChildren(sort);
    sort.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      let order = rows;
      if (next) {
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        // What is not known stays at the end, whichever way.
        order = [...rows].sort((a, b) => {
          const [x, y] = [value(a, at), value(b, at)];
          return x === "" || y === "" ? compare(x, y) : sign * compare(x, y);
        });
      }
      body.append(...order);
    });
  });
})();
