// All runs, arm by arm: filter, sort, choose columns, put some side by side.
import { get, part, say } from "./app.js";
import { make, ago, chart, chip, duration, when, written } from "./draw.js";

const PAGE = 200;
const SIDE = 12;
let data = null;
let taken = 0;
let rows = [];
let limit = PAGE;
const chosen = new Set();
// What the address says: it can be kept and sent.
const state = { q: "", sort: "begun", down: true, cells: true, columns: null, side: false };

const FIXED = [
  { name: "run", label: "run", of: (row) => row.run },
  { name: "pipeline", label: "pipeline", of: (row) => row.of.pipeline },
  { name: "state", label: "state", of: (row) => row.of.ended },
  { name: "begun", label: "begun", of: (row) => row.of.started_ms, number: true },
  { name: "took", label: "took", of: (row) => took(row.of), number: true },
];

const BY_NAME = new Map(FIXED.map((column) => [column.name, column]));

function took(run) {
  return ((run.finished_ms || Date.now()) - run.started_ms) / 1000;
}

function cellText(cell) {
  return cell.map(([axis, value]) => `${axis}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
}

function read(query) {
  state.q = query.get("q") || "";
  state.sort = query.get("sort") || "begun";
  state.down = query.get("down") !== "0";
  state.cells = query.get("cells") !== "0";
  state.columns = query.has("columns") ? query.get("columns").split(",").filter(Boolean) : null;
  state.side = query.get("side") === "1";
  if (query.has("chosen")) query.get("chosen").split(",").filter(Boolean).forEach((id) => chosen.add(id));
}

function keep() {
  const query = new URLSearchParams();
  if (state.q) query.set("q", state.q);
  if (state.sort !== "begun") query.set("sort", state.sort);
  if (!state.down) query.set("down", "0");
  if (!state.cells) query.set("cells", "0");
  if (state.columns) query.set("columns", state.columns.join(","));
  if (state.side) query.set("side", "1");
  if (chosen.size) query.set("chosen", [...chosen].join(","));
  const text = query.toString();
  history.replaceState(null, "", "#/runs" + (text ? "?" + text : ""));
}

// Rows from what the server says: values of the fields that differ, by their place.
function take(value) {
  data = value;
  data.byName = new Map();
  let place = 0;
  for (const field of data.fields) {
    data.byName.set(field.name, { ...field, place: field.varies ? place++ : -1 });
  }
  const runs = new Map(data.runs.map((run) => [run.run, run]));
  const counts = new Map();
  rows = data.arms.map((arm) => {
    const nth = counts.get(arm.run) || 0;
    counts.set(arm.run, nth + 1);
    return { ...arm, id: `${arm.run}.${nth}`, nth, of: runs.get(arm.run), text: cellText(arm.cell) };
  });
}

function valueOf(row, name) {
  const fixed = BY_NAME.get(name);
  if (fixed) return fixed.of(row);
  const field = data.byName.get(name);
  if (!field) return undefined;
  return field.place < 0 ? field.same : row.values[field.place];
}

function title(field) {
  return field.label || field.name.split(".").at(-1);
}

// Metrics of which it is known what is better come first, those of the state before an edit last.
function ordered(role) {
  const weight = (field) => (field.better ? 0 : 2) + (/\.before_|\.current_/.test(field.name) ? 4 : 0) + (field.format === "percent" ? 0 : 1);
  const order = (field) => field.order ?? 1000;
  return data.fields.filter((field) => field.role === role).sort((a, b) => weight(a) - weight(b) || order(a) - order(b));
}

function columns() {
  if (state.columns) return state.columns.map((name) => data.byName.get(name)).filter(Boolean);
  const axes = ordered("axis").filter((field) => field.varies).slice(0, 4);
  // An axis is in the parameters that it sets, too.
  const params = ordered("parameter").filter((field) => field.varies && !/(^|\.)(path|limit)$/.test(field.name)).slice(0, axes.length ? 0 : 3);
  const metrics = ordered("metric").filter((field) => !/\.before_|\.current_/.test(field.name)).slice(0, 6);
  return [...axes, ...params, ...metrics].map((field) => data.byName.get(field.name));
}

const OPERATORS = {
  ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "!=": (a, b) => String(a) !== String(b), ">": (a, b) => a > b, "<": (a, b) => a < b,
  "=": (a, b) => String(a) === String(b) || Number(a) === Number(b), ":": (a, b) => String(a).toLowerCase().includes(String(b).toLowerCase()),
};

// "scores.ES>0.9 objective=memit demo": words that are no comparison are looked for in run, pipeline, state and cell.
function filter(text) {
  const wrong = [];
  const tests = (text.match(/"[^"]*"|\S+/g) || []).map((word) => {
    const found = /^([^\s<>=!:]+)(>=|<=|!=|[><=:])(.*)$/.exec(word);
    if (!found) {
      const part = word.replaceAll('"', "").toLowerCase();
      return (row) => `${row.run} ${row.of.pipeline} ${row.of.ended} ${row.text}`.toLowerCase().includes(part);
    }
    const [, name, sign, wanted] = found;
    const known = [...FIXED.map((column) => column.name), ...data.byName.keys()];
    const lower = name.toLowerCase();
    let names = known.filter((full) => full.toLowerCase() === lower);
    if (!names.length) names = known.filter((full) => full.toLowerCase().endsWith("." + lower));
    if (!names.length) names = data.fields.filter((field) => field.label?.toLowerCase() === lower).map((field) => field.name);
    if (!names.length) { wrong.push(`there is no column ${name}`); return () => true; }
    if (!wanted) return () => true;
    const percent = /^[-\d.]+%$/.test(wanted);
    const number = percent ? Number(wanted.slice(0, -1)) / 100 : Number(wanted);
    const compare = ["=", "!=", ":"].includes(sign) ? (percent ? number : wanted) : number;
    if (typeof compare === "number" && Number.isNaN(compare)) { wrong.push(`${wanted} is no number`); return () => true; }
    return (row) => names.some((full) => {
      const value = valueOf(row, full);
      return value !== undefined && value !== null && OPERATORS[sign](value, compare);
    });
  });
  return { keep: (row) => tests.every((test) => test(row)), wrong };
}

function listed() {
  const { keep, wrong } = filter(state.q);
  let found = rows.filter(keep);
  const order = (a, b) => {
    const [x, y] = [valueOf(a, state.sort), valueOf(b, state.sort)];
    const none = (value) => value === undefined || value === null;
    if (none(x) || none(y)) return none(x) - none(y);
    const by = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
    return (state.down ? -by : by) || a.nth - b.nth;
  };
  found.sort(order);
  if (!state.cells) {
    // Of a run, the arm that the order puts first.
    const seen = new Set();
    found = found.filter((row) => !seen.has(row.run) && seen.add(row.run));
  }
  return { found, wrong };
}

function drawTable(main) {
  const shown = columns();
  const { found, wrong } = listed();
  const head = (name, text, small, number) => {
    const sorted = state.sort === name;
    const press = () => {
      [state.sort, state.down] = sorted ? [name, !state.down] : [name, number !== false];
      keep();
      drawTable(main);
      say(`sorted by ${text}, ${state.down ? "largest" : "smallest"} first`);
    };
    return make("th", { scope: "col", class: number === true ? "number" : "", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null },
      make("button", { class: "plain", type: "button", id: `sort-${name}`, onclick: press }, text), small && make("small", {}, small));
  };
  const single = data.runs.every((run) => run.pipeline === data.runs[0].pipeline);
  const line = (row) => {
    const label = row.run + (row.text ? ` (${row.text})` : "");
    const box = make("input", {
      type: "checkbox", id: `choose-${row.id}`, checked: chosen.has(row.id), "aria-label": `choose ${label}`,
      onchange: (event) => {
        if (event.target.checked) chosen.add(row.id); else chosen.delete(row.id);
        event.target.closest("tr").classList.toggle("chosen", event.target.checked);
        keep();
        drawTools(main);
      },
    });
    const cells = shown.map((field) => {
      const value = valueOf(row, field.name);
      const number = typeof value === "number";
      const text = written(value, field.format);
      return make("td", { class: number ? "number" : "long", title: text.length > 24 ? text : null }, text);
    });
    return make("tr", { class: chosen.has(row.id) ? "chosen" : "" },
      make("td", {}, box),
      make("th", { scope: "row" }, make("a", { href: `#/run/${row.run}`, id: `run-${row.id}` }, row.run), row.text && make("small", {}, row.text)),
      single ? null : make("td", {}, row.of.pipeline), make("td", {}, chip(row.of.ended)),
      make("td", { title: when(row.of.started_ms) }, ago(row.of.started_ms)), make("td", { class: "number" }, duration(took(row.of))), cells);
  };
  part(main, "list", [state, found.slice(0, limit).map((row) => row.id), shown, wrong, data.tag, Math.floor(Date.now() / 60000)], () => {
    if (!rows.length) return make("p", { class: "note" }, "No runs yet: ", make("code", {}, "palinode run pipeline.yaml"), " makes the first one.");
    const runs = new Set(found.map((row) => row.run)).size;
    const what = found.length === runs ? `${found.length} of ${rows.length} runs` : `${found.length} of ${rows.length} arms, of ${runs} ${runs === 1 ? "run" : "runs"}`;
    return [
      wrong.length ? make("p", { class: "error" }, wrong.join("; ")) : null,
      make("div", { class: "scroll", id: "list-scroll", tabindex: 0, role: "region", "aria-label": "Table of runs" },
        make("table", { class: "runs" }, make("caption", {}, what),
          make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", { class: "unseen" }, "choose")),
            head("run", single ? `run of ${data.runs[0].pipeline}` : "run", "", false), single ? null : head("pipeline", "pipeline", "", false), head("state", "state", "", false), head("begun", "begun"), head("took", "took", "", true),
            shown.map((field) => head(field.name, title(field), field.name.includes(".") ? field.name.split(".")[0] : field.role, field.role === "metric" ? true : undefined)))),
          make("tbody", {}, found.slice(0, limit).map(line)))),
      found.length > limit ? make("p", {}, make("button", { type: "button", id: "more", onclick: () => { limit += PAGE; drawTable(main); } }, `Show ${Math.min(PAGE, found.length - limit)} more`)) : null,
    ];
  });
  drawTools(main);
}

function drawTools(main) {
  part(main, "chosen", [[...chosen], state.side], () => {
    if (!chosen.size) return make("p", { class: "note" }, "Choose runs to see them side by side.");
    return make("div", { class: "row" },
      make("button", { class: "main", type: "button", id: "side", onclick: () => { state.side = !state.side; keep(); drawSide(main); drawTools(main); } },
        state.side ? "Hide side by side" : `Side by side (${chosen.size})`),
      make("button", { type: "button", id: "none", onclick: () => { chosen.clear(); state.side = false; keep(); drawTable(main); drawSide(main); document.getElementById("q").focus(); } }, "Choose none"));
  });
}

// The chosen arms beside each other: what differs, and their curves in one drawing.
async function drawSide(main) {
  const picked = rows.filter((row) => chosen.has(row.id)).slice(0, SIDE);
  const shownNow = state.side && picked.length > 0;
  const runs = [...new Set(picked.map((row) => row.run))];
  const details = shownNow ? await Promise.all(runs.map((run) => get(`/api/runs/${run}`).then(({ value }) => value).catch(() => null))) : [];
  part(main, "beside", [shownNow, picked, details.map((run) => run?.live)], () => {
    if (!shownNow) return null;
    const fields = data.fields.filter((field) => {
      const values = picked.map((row) => JSON.stringify(valueOf(row, field.name) ?? null));
      return values.some((value) => value !== "null") && (field.role === "metric" ? !/\.before_|\.current_/.test(field.name) : values.some((value) => value !== values[0]));
    });
    const group = (role, name) => {
      const members = ordered(role).filter((field) => fields.some((known) => known.name === field.name));
      if (!members.length) return null;
      return make("tbody", {}, make("tr", {}, make("th", { scope: "rowgroup", colspan: picked.length + 1 }, name)), members.map((field) => {
        const values = picked.map((row) => valueOf(row, field.name));
        return make("tr", {}, make("th", { scope: "row", title: field.doc }, title(field), make("small", {}, field.name)), values.map((value) => {
          const text = written(value, field.format);
          return make("td", { class: typeof value === "number" ? "number" : "long", title: text.length > 24 ? text : null }, text);
        }));
      }));
    };
    const curves = new Map();
    details.forEach((run) => run?.live.curves.forEach((curve) => {
      const row = picked.find((row) => row.run === run.run);
      // Of a run with several arms, those that were chosen.
      const member = run.members.find((member) => member.instance === curve.instance);
      const arms = picked.filter((row) => row.run === run.run);
      const within = (arm) => member.cell.every(([axis, value]) => arm.cell.some(([a, b]) => a === axis && JSON.stringify(b) === JSON.stringify(value)));
      if (!row || !member || !arms.some(within)) return;
      const stage = member.stage;
      const key = `${stage}: ${curve.what}`;
      if (!curves.has(key)) curves.set(key, { step: curve.step, lines: [] });
      const label = runs.length > 1 ? `${run.run} ${cellText(member.cell)}`.trim() : cellText(member.cell) || run.run;
      curves.get(key).lines.push({ label, points: curve.points });
    }));
    const formats = new Map(data.fields.map((field) => [field.name.replace(".", ": "), field.format]));
    return make("section", { "aria-labelledby": "beside-title" },
      make("h2", { id: "beside-title", tabindex: -1 }, "Side by side"),
      chosen.size > SIDE ? make("p", { class: "note" }, `The first ${SIDE} of ${chosen.size}.`) : null,
      make("div", { class: "scroll", id: "beside-scroll", tabindex: 0, role: "region", "aria-label": "Side by side" },
        make("table", {}, make("caption", {}, "Parameters that differ, and all metrics"), make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", { class: "unseen" }, "field")),
          picked.map((row) => make("th", { scope: "col" }, make("a", { href: `#/run/${row.run}` }, row.run), make("small", {}, row.text || row.of.pipeline))))),
        group("axis", "Axes"), group("parameter", "Parameters"), group("metric", "Metrics"))),
      curves.size ? [make("h3", {}, "Curves"), make("div", { class: "cards" }, [...curves].map(([key, { step, lines }]) => chart(key, step, lines.slice(0, 8), { format: formats.get(key) })))] : null);
  });
}

function picker(main) {
  const shown = new Set(columns().map((field) => field.name));
  const list = (role, name) => {
    const members = ordered(role).filter((field) => field.varies || field.role === "metric");
    if (!members.length) return null;
    return make("fieldset", {}, make("legend", {}, name), members.map((field) => {
      const id = `column-${field.name}`;
      return make("div", { class: "choice" },
        make("input", { type: "checkbox", id, checked: shown.has(field.name), onchange: (event) => {
          const names = columns().map((known) => known.name);
          state.columns = event.target.checked ? [...names, field.name] : names.filter((known) => known !== field.name);
          keep();
          drawTable(main);
        } }), make("label", { for: id }, field.name));
    }));
  };
  const same = data.fields.filter((field) => !field.varies).length;
  return [list("axis", "Axes"), list("metric", "Metrics"), list("parameter", "Parameters that differ"),
    same ? make("p", { class: "note" }, `${same} parameters are the same everywhere; a run's page has them.`) : null,
    make("button", { type: "button", id: "columns-usual", onclick: () => { state.columns = null; keep(); part(main, "picker", "", () => null); drawPicker(main); drawTable(main); } }, "Usual columns")];
}

function drawPicker(main) {
  const box = main.querySelector("#picker-box");
  part(box, "picker", [data.fields.map((field) => [field.name, field.varies]), state.columns === null], () => picker(main));
}

function frame(main) {
  const q = make("input", { id: "q", type: "search", value: state.q, autocomplete: "off", spellcheck: "false", "aria-describedby": "q-how", list: "names",
    placeholder: "scores.ES>0.9 objective=memit failed",
    oninput: (event) => { state.q = event.target.value; limit = PAGE; keep(); drawTable(main); } });
  const cells = make("input", { type: "checkbox", id: "cells", checked: state.cells, onchange: (event) => { state.cells = event.target.checked; keep(); drawTable(main); } });
  main.append(
    make("h1", {}, "Runs"),
    make("div", { id: "work" }),
    make("div", { class: "tools" },
      make("div", { class: "wide" }, make("label", { for: "q" }, "Filter"), q, make("datalist", { id: "names" })),
      make("div", { class: "choice" }, cells, make("label", { for: "cells" }, "every arm")),
      make("details", { class: "pick", id: "pick", onkeydown: (event) => { if (event.key === "Escape") { event.currentTarget.open = false; event.currentTarget.firstChild.focus(); } } },
        make("summary", {}, "Columns"), make("div", { id: "picker-box" }))),
    make("p", { class: "note unseen", id: "q-how" }, "Words, or comparisons of a column: name>number, name=value, name:part"),
    make("div", { id: "chosen" }), make("div", { id: "beside" }), make("div", { id: "list" }));
}

let working = new Map();

export async function show(main, { query, first, current }) {
  const { value, fresh } = await get("/api/runs");
  if (!current()) return 0;
  if (first) { read(query); frame(main); limit = PAGE; }
  if (fresh || first) {
    take(value);
    data.tag = ++taken;
    main.querySelector("#names").replaceChildren(...data.fields.filter((field) => field.varies).slice(0, 200).map((field) => make("option", { value: field.name + (field.role === "metric" ? ">" : "=") })));
    drawPicker(main);
  }
  const busy = data.runs.filter((run) => run.ended === "running");
  for (const [run, before] of working) {
    const after = data.runs.find((known) => known.run === run);
    if (before === "running" && after && after.ended !== "running") say(`run ${run} of ${after.pipeline} is ${after.ended}`);
  }
  working = new Map(data.runs.map((run) => [run.run, run.ended]));
  part(main, "work", [busy, data.unread], () => [
    busy.map((run) => make("p", {}, chip("running"), " ", make("a", { href: `#/run/${run.run}` }, run.pipeline), ` ${run.ran + run.cached} of ${run.stages} stages, begun ${ago(run.started_ms)}`,
      run.at_work.length ? make("span", { class: "soft" }, ` · ${run.at_work.slice(0, 3).join(", ")}`) : null)),
    data.unread.length ? make("p", { class: "error" }, `records of runs do not read, and are left out: ${data.unread.map((one) => `${one.run}: ${one.why}`).slice(0, 3).join("; ")}`) : null,
  ]);
  drawTable(main);
  await drawSide(main);
  return busy.length ? 1500 : 5000;
}

