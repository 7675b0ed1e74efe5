// Elements, numbers in words, and charts. Every text is set as text: nothing that a model said becomes part of the page.

export function make(name, set = {}, ...inside) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(set)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...inside.flat(9).filter((part) => part !== undefined && part !== null && part !== false));
  return element;
}

function shape(name, set = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(set)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function ago(ms) {
  const seconds = (Date.now() - ms) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

export function when(ms) {
  const date = new Date(ms);
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function short(number) {
  if (!Number.isFinite(number)) return "–";
  if (Number.isInteger(number) && Math.abs(number) < 1e6) return String(number);
  const size = Math.abs(number);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return number.toExponential(2);
  return String(Number(number.toPrecision(4)));
}

export function written(value, format) {
  if (value === undefined || value === null) return "–";
  if (typeof value === "number") {
    if (format === "percent" && value > 0 && value < 0.0005) return "<0.1 %";
    if (format === "percent") return `${(100 * value).toFixed(1)} %`;
    return short(value);
  }
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function chip(word) {
  return make("span", { class: `chip ${word.replace(/ /g, "-")}` }, word);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return make("dl", { class: "facts" }, shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

const MANY = 10;
const WIDE = 340, HIGH = 190, LEFT = 46, RIGHT = 8, TOP = 8, FOOT = 30;

function ticks(low, high, count) {
  const step = 10 ** Math.floor(Math.log10((high - low) / count || 1));
  const size = [1, 2, 5, 10].map((by) => by * step).find((size) => (high - low) / size <= count) || step * 10;
  const found = [];
  for (let at = Math.ceil(low / size) * size; at <= high + size * 1e-9; at += size) found.push(Number(at.toPrecision(12)));
  return found;
}

// A curve begins again where its steps do: several searches one after the other.
function pieces(points) {
  const all = [];
  points.forEach((point, at) => {
    if (at === 0 || point[0] < points[at - 1][0]) all.push([]);
    all[all.length - 1].push(point);
  });
  return all;
}

// Lines: [{ label, points: [[x, y], …] }]. The drawing is a picture for those who see it, and a table for all.
export function chart(title, x, lines, { format } = {}) {
  const all = lines.flatMap((line) => line.points);
  const spread = (at) => {
    let [low, high] = [Infinity, -Infinity];
    for (const point of all) { low = Math.min(low, point[at]); high = Math.max(high, point[at]); }
    return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high];
  };
  const [[x0, x1], [y0, y1]] = [spread(0), spread(1)];
  const pad = (y1 - y0) * 0.06;
  const px = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDE - LEFT - RIGHT);
  const py = (value) => HIGH - FOOT - ((value - y0 + pad) / (y1 - y0 + 2 * pad)) * (HIGH - TOP - FOOT);
  const last = lines.map((line) => `${line.label}: ${written(line.points.at(-1)[1], format)}`).slice(0, 8).join("; ");
  const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}, at the end ${last}` });
  for (const tick of ticks(y0 - pad, y1 + pad, 4)) {
    svg.append(shape("line", { class: "axis", x1: LEFT, x2: WIDE - RIGHT, y1: py(tick), y2: py(tick) }));
    svg.append(shape("text", { x: LEFT - 5, y: py(tick) + 3.5, "text-anchor": "end" }, format === "percent" ? `${short(100 * tick)} %` : short(tick)));
  }
  for (const tick of ticks(x0, x1, 5)) {
    svg.append(shape("text", { x: px(tick), y: HIGH - FOOT + 14, "text-anchor": "middle" }, short(tick)));
  }
  svg.append(shape("text", { x: WIDE - RIGHT, y: HIGH - 3, "text-anchor": "end" }, x));
  lines.forEach((line, which) => {
    const at = lines.length > MANY ? 0 : which;
    const several = pieces(line.points);
    for (const piece of several) {
      const many = several.length > 3 || lines.length > MANY;
      if (piece.length === 1) {
        svg.append(shape("circle", { class: `dot s${at % 8}`, cx: px(piece[0][0]), cy: py(piece[0][1]), r: 2.6 }));
      } else {
        const path = piece.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" ");
        svg.append(shape("polyline", { class: `line s${at % 8}`, points: path, "stroke-opacity": many ? 0.45 : 1 }));
      }
    }
  });
  const readout = make("p", { class: "readout", "aria-hidden": "true" });
  const mark = shape("line", { class: "mark", y1: TOP, y2: HIGH - FOOT, visibility: "hidden" });
  svg.append(mark);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const value = x0 + (((event.clientX - box.left) / box.width) * WIDE - LEFT) / (WIDE - LEFT - RIGHT) * (x1 - x0);
    const near = lines.map((line) => {
      const point = line.points.reduce((best, point) => (Math.abs(point[0] - value) <= Math.abs(best[0] - value) ? point : best));
      return [line, point];
    });
    const [, point] = near[0];
    mark.setAttribute("x1", px(point[0]));
    mark.setAttribute("x2", px(point[0]));
    mark.setAttribute("visibility", "visible");
    const told = near.slice(0, 4).map(([line, point]) => (lines.length > 1 ? `${line.label} ` : "") + written(point[1], format));
    readout.textContent = `${x} ${short(point[0])}: ${told.join(" · ")}`;
  });
  svg.addEventListener("pointerleave", () => { mark.setAttribute("visibility", "hidden"); readout.textContent = ""; });
  // Of many lines, none is told from the others.
  const keys = lines.length > 1 && lines.length <= MANY && make("ul", { class: "keys" }, lines.map((line, at) => {
    const key = shape("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" });
    key.append(shape("line", { class: `line s${at % 8}`, x1: 1, x2: 21, y1: 5, y2: 5 }));
    return make("li", {}, key, line.label);
  }));
  return make("figure", {}, make("figcaption", {}, title), svg, readout, keys, values(title, x, lines, format));
}

function values(title, x, lines, format) {
  const details = make("details", { class: "values" }, make("summary", {}, "as a table"));
  // Made when it is wanted: a page has many charts.
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const rows = lines.flatMap((line) => line.points.map(([a, b]) => [line.label, a, b]));
    const several = lines.length > 1;
    const body = rows.slice(0, 500).map(([label, a, b]) => make("tr", {}, several && make("td", {}, label),
      make("td", { class: "number" }, short(a)), make("td", { class: "number" }, written(b, format))));
    const heads = [...(several ? ["of"] : []), x, title].map((head) => make("th", { scope: "col" }, head));
    details.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, make("table", {},
      make("thead", {}, make("tr", {}, heads)), make("tbody", {}, body))));
  }, { once: false });
  return details;
}
