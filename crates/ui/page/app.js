// The frame: which view, what is fetched, what is said.
import { make } from "./draw.js";
import * as runs from "./runs.js";
import * as run from "./run.js";
import * as ask from "./ask.js";

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
const said = document.getElementById("said");
const held = new Map();

// Fetches, and says whether it is something new. What did not change is not sent again.
export async function get(path) {
  const known = held.get(path);
  const headers = known ? { "If-None-Match": known.tag } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 304) return { value: known.value, fresh: false };
  if (answer.status === 401) throw new Error("This page is of a program that has ended, or was opened elsewhere. Open the link that `palinode ui` shows.");
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const tag = answer.headers.get("ETag");
  const value = await answer.json();
  if (held.size > 40) held.clear();
  held.set(path, { tag, value });
  return { value, fresh: true };
}

export async function post(path, value) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
}

// For those who hear the page: what happened, not every step.
export function say(text) {
  said.textContent = text;
}

// A part of a view, drawn again only when what it shows is other than before. Who has the focus keeps it, and open details stay open.
export function part(parent, id, data, draw) {
  let element = parent.querySelector(`#${CSS.escape(id)}`);
  if (!element) {
    element = make("div", { id });
    parent.append(element);
  }
  const text = JSON.stringify(data);
  if (element.drawn === text) return element;
  element.drawn = text;
  const focus = element.contains(document.activeElement) ? document.activeElement.id : "";
  const open = new Set([...element.querySelectorAll("details[open][id]")].map((details) => details.id));
  const scrolled = [...element.querySelectorAll(".scroll[id], pre[id]")].map((box) => [box.id, box.scrollLeft, box.scrollTop]);
  element.replaceChildren(...[draw()].flat(9).filter(Boolean));
  open.forEach((id) => { const details = document.getElementById(id); if (details) details.open = true; });
  scrolled.forEach(([id, left, top]) => { const box = document.getElementById(id); if (box) { box.scrollLeft = left; box.scrollTop = top; } });
  if (focus) document.getElementById(focus)?.focus();
  return element;
}

const views = { runs, run, ask };
let now = { view: null, where: "" };
let timer = 0;
let turn = 0;

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name: views[name] ? name : "runs", rest, query: new URLSearchParams(query) };
}

async function show() {
  // The link to the content is no page.
  if (location.hash === "#main") return;
  const { name, rest, query } = route();
  const where = name + "/" + rest.join("/");
  if (where !== now.where) {
    now = { view: views[name], where, rest };
    main.replaceChildren();
    document.querySelectorAll("nav a").forEach((link) => {
      if (link.dataset.page === name || (name === "run" && link.dataset.page === "runs")) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    await refresh(query, true);
    document.title = (main.querySelector("h1")?.textContent || "runs") + " – palinode";
    if (show.before) main.focus({ preventScroll: false });
    show.before = true;
  } else {
    await refresh(query);
  }
}

async function refresh(query = route().query, first = false) {
  clearTimeout(timer);
  const mine = ++turn;
  let again = 5000;
  try {
    again = await now.view.show(main, { rest: now.rest, query, first, current: () => mine === turn });
    trouble.hidden = true;
  } catch (error) {
    if (mine !== turn) return;
    trouble.textContent = error instanceof TypeError ? "The program does not answer: it may have ended." : error.message;
    trouble.hidden = false;
  }
  if (mine === turn && !document.hidden) timer = setTimeout(refresh, again || 5000);
}

export const look = () => refresh();

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

const root = document.documentElement;
const button = document.getElementById("theme");
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
const named = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `use the ${dark() ? "light" : "dark"} theme`); };
try { if (localStorage.theme) root.dataset.theme = localStorage.theme; } catch { /* Nothing is remembered then. */ }
button.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  try { localStorage.theme = root.dataset.theme; } catch { /* As above. */ }
  named();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
named();
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });

get("/api/store").then(({ value }) => {
  const place = document.getElementById("store");
  place.textContent = value.store;
  place.title = value.store;
}).catch(() => {});
show();
