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
    opened = [...document.querySelectorAll("#doubts details:not([open]), #results details:not([open]), #layers details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => { opened.forEach((details) => { details.open = false; }); });

  // A figure as a picture: its drawings beside each other and its legend below them, in light colours on white.
  const sheet = (figure) => {
    const make = (name, set) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      Object.entries(set).forEach(([key, value]) => made.setAttribute(key, value));
      return made;
    };
    const inside = [];
    const put = (drawing, x, y) => {
      const { width, height } = drawing.viewBox.baseVal;
      const copy = drawing.cloneNode(true);
      Object.entries({ x, y, width, height }).forEach(([key, value]) => copy.setAttribute(key, value));
      inside.push(copy);
      return [width, height];
    };
    let [x, y, high, wide] = [16, 16, 0, 0];
    [...figure.querySelectorAll(".panels svg")].forEach((drawing, at, all) => {
      if (at > 0 && at % (all.length > 8 ? 6 : 4) === 0) [x, y, high] = [16, y + high + 16, 0];
      const [width, height] = put(drawing, x, y);
      x += width + 16;
      [high, wide] = [Math.max(high, height), Math.max(wide, x)];
    });
    y += high + 24;
    x = 16;
    const keys = [...figure.querySelectorAll(".legend li")];
    keys.forEach((key) => {
      const words = key.textContent.trim();
      const swatch = key.querySelector("svg");
      const room = (swatch ? 32 : 0) + 6.6 * words.length + 16;
      if (x > 16 && x + room > wide) [x, y] = [16, y + 18];
      if (swatch) put(swatch, x, y - 9);
      const text = make("text", { x: x + (swatch ? 32 : 0), y, fill: "currentColor" });
      text.textContent = words;
      inside.push(text);
      x += room;
    });
    const [width, height] = [Math.ceil(wide), Math.ceil(y + (keys.length ? 16 : -8))];
    const font = { color: "#1b1d21", "font-family": "Helvetica Neue, Helvetica, Arial, sans-serif", "font-size": 11 };
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, ...font });
    svg.append(make("rect", { width, height, fill: "#ffffff" }), ...inside);
    return { width, height, text: new XMLSerializer().serializeToString(svg) };
  };
  const painted = ({ width, height, text }) => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [3 * width, 3 * height];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(done, "image/png");
    };
    image.onerror = failed;
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  });
  document.querySelectorAll("figure").forEach((figure) => {
    const line = document.createElement("p");
    line.className = "save";
    [["SVG", async (drawn) => new Blob([drawn.text], { type: "image/svg+xml" })], ["PNG", painted]].forEach(([name, make]) => {
      const save = document.createElement("button");
      save.type = "button";
      save.textContent = name;
      save.setAttribute("aria-label", `save the figure as ${name}`);
      save.addEventListener("click", async () => {
        const file = await make(sheet(figure));
        const link = document.createElement("a");
        link.href = URL.createObjectURL(file);
        link.download = `${figure.id}.${name.toLowerCase()}`;
        link.click();
        URL.revokeObjectURL(link.href);
        save.dataset.saved = file.size;
      });
      line.append(save);
    });
    figure.append(line);
  });

  // Tables of results: which columns are shown, and what rows are grouped by. Files have all of it.
  document.querySelectorAll("table[id^='table-']").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const numbers = heads.map((head, at) => at).filter((at) => heads[at].classList.contains("number"));
    const axes = heads.map((head, at) => at).filter((at) => !numbers.includes(at) && new Set(rows.map((row) => row.cells[at].textContent)).size > 1);
    if (numbers.length < 5 || rows.length < 2) return;
    const box = document.createElement("details");
    box.className = "choose";
    const title = document.createElement("summary");
    title.textContent = "columns and groups";
    const fields = document.createElement("div");
    numbers.forEach((at) => {
      const [label, check] = [document.createElement("label"), document.createElement("input")];
      check.type = "checkbox";
      check.checked = true;
      check.addEventListener("change", () => [heads[at], ...rows.map((row) => row.cells[at])].forEach((cell) => { cell.hidden = !check.checked; }));
      label.append(check, " " + heads[at].textContent.replace(/ [(↑↓].*$/, ""));
      fields.append(label);
    });
    if (axes.length > 1) {
      const [label, select] = [document.createElement("label"), document.createElement("select")];
      select.append(new Option("as the matrix has them", ""), ...axes.map((at) => new Option(heads[at].textContent, at)));
      select.addEventListener("change", () => {
        body.querySelectorAll("tr.group").forEach((row) => row.remove());
        table.classList.toggle("regrouped", select.value !== "");
        if (select.value === "") return body.append(...rows);
        const of = (row) => row.cells[select.value].textContent;
        new Set(rows.map(of)).forEach((name) => {
          const head = document.createElement("tr");
          head.className = "group";
          const cell = document.createElement("th");
          cell.colSpan = heads.length;
          cell.scope = "rowgroup";
          cell.textContent = name;
          head.append(cell);
          if (name) body.append(head);
          body.append(...rows.filter((row) => of(row) === name));
        });
      });
      label.append("rows grouped by ", select);
      fields.append(label);
    }
    box.append(title, fields);
    table.closest(".scroll").before(box);
  });

  // On paper, a table that is wider than a page stands in parts, each with the columns that say what a row is.
  const PAPER = 1150;
  addEventListener("beforeprint", () => document.querySelectorAll("table[id^='table-']").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const width = (at) => heads[at].getBoundingClientRect().width;
    const shown = heads.map((head, at) => at).filter((at) => !heads[at].hidden);
    const fixed = shown.filter((at) => !heads[at].classList.contains("number"));
    const room = PAPER - fixed.reduce((sum, at) => sum + width(at), 0);
    const parts = [];
    let left = 0;
    shown.filter((at) => !fixed.includes(at)).forEach((at) => {
      if (!parts.length || width(at) > left) { parts.push([]); left = room; }
      parts[parts.length - 1].push(at);
      left -= width(at);
    });
    if (parts.length < 2) return;
    const scroll = table.closest(".scroll");
    parts.forEach((part, number) => {
      const copy = table.cloneNode(true);
      copy.removeAttribute("id");
      if (number && copy.caption) copy.caption.textContent = table.caption.querySelector("b").textContent + " (continued)";
      [...copy.rows].filter((row) => row.cells.length === heads.length).forEach((row) =>
        [...row.cells].forEach((cell, at) => { cell.hidden = !fixed.includes(at) && !part.includes(at); }));
      const box = document.createElement("div");
      box.className = "onpaper";
      box.append(copy);
      scroll.before(box);
    });
    scroll.classList.add("onscreen");
  }));
  addEventListener("afterprint", () => {
    document.querySelectorAll(".onpaper").forEach((box) => box.remove());
    document.querySelectorAll(".onscreen").forEach((box) => box.classList.remove("onscreen"));
  });

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
