// One run: how far it is, its curves, its scores, where each stage stands.
import { get, part, say } from "./app.js";
import { make, ago, chart, chip, duration, facts, short, when, written } from "./draw.js";

let open = null;
let log = { at: null, text: "" };
let told = new Map();
let losses = null;

function bars(run) {
  return run.live.counts.filter((count) => !count.ended && run.ended === "running").map((count) => {
    const seconds = (count.at_ms - count.started_ms) / 1000;
    const fresh = count.done - Math.min(count.kept, count.done);
    const rate = fresh > 0 && seconds > 0 ? fresh / seconds : null;
    const left = rate && count.total ? (count.total - count.done) / rate : null;
    const name = `${count.instance}: ${count.done}${count.total ? " of " + count.total : ""} ${count.what}`;
    const more = [rate && (rate >= 1 ? `${short(Number(rate.toPrecision(3)))}/s` : `${short(Number((1 / rate).toPrecision(2)))} s each`), left !== null && `${duration(left)} left`,
      count.kept && `${count.kept} from earlier`, count.note].filter(Boolean).join(" · ");
    const bar = make("progress", { "aria-label": name });
    if (count.total) { bar.max = count.total; bar.value = count.done; }
    return make("div", { class: "bar" }, make("span", {}, name), make("span", { class: "soft" }, more), bar);
  });
}

function stages(main, run) {
  const line = (member) => {
    const working = member.state === "working";
    const time = working ? `since ${duration((Date.now() - member.more.since_ms) / 1000)}` : member.seconds > 0 && member.state !== "cached" ? duration(member.seconds) : "";
    const more = member.state === "failed" ? member.more.message.split("\n")[0] : member.state === "not reached" && member.more?.because ? `because of ${member.more.because}` : member.lost ? "the result is no longer in the store" : "";
    return make("tr", {}, make("td", {}, chip(member.state)), make("th", { scope: "row" }, make("button", { class: "plain", type: "button", id: `stage-${member.at}`, "aria-expanded": open === member.at ? "true" : "false", "aria-controls": "stage",
      onclick: () => { open = open === member.at ? null : member.at; log = { at: null, text: "" }; draw(main, run); if (open !== null) fetchLog(main, run); } }, member.instance)),
      make("td", { class: "number" }, time), make("td", { class: "soft" }, member.uses), make("td", { class: "long soft", title: more }, more));
  };
  const heads = ["state", "stage", "time", "kind", ""].map((head) => make("th", { scope: "col", class: head === "time" ? "number" : "" }, head || make("span", { class: "unseen" }, "remark")));
  return make("div", { class: "scroll", id: "stages-scroll", tabindex: 0, role: "region", "aria-label": "Stages" },
    make("table", {}, make("caption", { class: "unseen" }, "Stages"), make("thead", {}, make("tr", {}, heads)), make("tbody", {}, run.members.map(line))));
}

async function fetchLog(main, run) {
  const at = open;
  if (at === null) return;
  const answer = await fetch(`/api/runs/${run.run}/log?stage=${at}`, { cache: "no-store" });
  const text = answer.ok ? await answer.text() : "";
  if (open !== at) return;
  log = { at, text };
  drawStage(main, run);
}

function drawStage(main, run) {
  const member = run.members[open];
  part(main, "stage", [member, log], () => {
    if (!member) return null;
    const params = Object.entries(member.params || {});
    return make("section", { "aria-labelledby": "stage-title" }, make("h2", { id: "stage-title" }, member.instance),
      member.state === "failed" ? make("p", { class: "error" }, member.more.message, member.more.hint ? `\nhint: ${member.more.hint}` : "") : null,
      member.model ? make("p", {}, make("a", { href: `#/ask/${run.run}/${member.at}` }, "Ask this model")) : null,
      member.published.length ? make("p", { class: "note" }, "wrote ", make("span", { class: "mono" }, member.published.slice(0, 6).join(", ") + (member.published.length > 6 ? " …" : ""))) : null,
      (member.shown.findings || []).map((finding) => make("p", { class: "error" }, finding)),
      params.length ? make("div", { class: "scroll", id: "params-scroll", tabindex: 0, role: "region", "aria-label": "Parameters" }, make("table", {}, make("caption", {}, "Parameters, after defaults"),
        make("tbody", {}, params.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "long", title: written(value) }, written(value))))))) : null,
      log.text ? [make("h3", {}, "Log"), make("pre", { tabindex: 0, "aria-label": "Log", id: "log" }, log.text)] : null);
  });
}

function scores(run) {
  const groups = new Map();
  for (const member of run.members) {
    if (!member.shown.columns.length) continue;
    if (!groups.has(member.stage)) groups.set(member.stage, []);
    groups.get(member.stage).push(member);
  }
  const judged = (members) => members[0].shown.columns.filter((column) => column.better).length;
  return [...groups].sort((a, b) => judged(b[1]) - judged(a[1])).map(([name, members]) => {
    const columns = members[0].shown.columns.filter((column) => !/^current_/.test(column.name)).slice(0, 24);
    const axes = members[0].cell.map(([axis]) => axis);
    const value = (member, column) => member.shown.columns.find((known) => known.name === column.name);
    return make("div", { class: "scroll", id: `scores-${name}`, tabindex: 0, role: "region", "aria-label": name }, make("table", {}, make("caption", {}, name),
      make("thead", {}, make("tr", {}, axes.map((axis) => make("th", { scope: "col" }, axis)), axes.length ? null : make("th", { scope: "col" }, make("span", { class: "unseen" }, "stage")), columns.map((column) => make("th", { scope: "col", class: "number", title: column.doc }, column.label)))),
      make("tbody", {}, members.map((member) => make("tr", {},
        axes.length ? member.cell.map(([, level], at) => make(at ? "td" : "th", at ? {} : { scope: "row" }, written(level))) : make("th", { scope: "row" }, member.instance),
        columns.map((column) => {
          const found = value(member, column);
          const text = written(found?.value, column.format);
          const interval = found?.interval && found.interval[0] !== null ? make("span", { class: "interval" }, `${written(found.interval[0], column.format)} … ${written(found.interval[1], column.format)}`) : null;
          return make("td", { class: "number" }, text, interval);
        }))))));
  });
}

function charts(run) {
  const all = new Map();
  const formats = new Map(run.members.flatMap((member) => member.shown.columns.map((column) => [`${member.stage}: ${column.name}`, [column.label, column.format]])));
  for (const curve of run.live.curves) {
    // Once it is known of each request, the one of all says nothing more.
    if (losses?.some((stage) => stage.instance === curve.instance)) continue;
    const member = run.members.find((member) => member.instance === curve.instance);
    const stage = member ? member.stage : curve.instance;
    const [label, format] = formats.get(`${stage}: ${curve.what}`) || [curve.what];
    // Of a share nothing is known before the stage is done but that it is one.
    const key = `${stage}: ${label}`;
    if (!all.has(key)) all.set(key, { step: curve.step, format, lines: [] });
    const name = member && member.cell.length ? member.cell.map(([, value]) => written(value)).join(", ") : stage;
    all.get(key).lines.push({ label: name, points: curve.points });
  }
  const rates = run.live.counts.filter((count) => count.rates.length > 2).slice(0, 6);
  return [
    [...all].slice(0, 24).map(([key, { step, format, lines }]) => chart(key, step, lines.slice(0, 40), { format })),
    (losses || []).map((stage) => chart(`${stage.instance}: loss of each request`, "step", stage.traces.slice(0, 40).map((trace) => ({ label: trace.label, points: trace.loss.map((loss, at) => [at + 1, loss]) })))),
    rates.map((count) => chart(`${count.instance}: ${count.what} a second`, "seconds", [{ label: count.what, points: count.rates.map(([at, rate]) => [(at - count.started_ms) / 1000, rate]) }])),
  ].flat();
}

// Prompt by prompt: what the unedited model says once, and below it what each edited one says.
function samples(run) {
  const prompts = new Map();
  for (const member of run.members) {
    for (const sample of member.shown.samples) {
      const key = sample.prompt || "";
      if (!prompts.has(key)) prompts.set(key, { sample, sides: [] });
      const known = prompts.get(key);
      const name = member.cell.length ? member.cell.map(([, value]) => written(value)).join(", ") : member.stage;
      if (sample.before && !known.sides.some(([side]) => side === "before")) known.sides.unshift(["before", sample.before, ""]);
      for (const side of ["after", "says"]) if (sample[side]) known.sides.push([`${side}, ${name}`, sample[side], sample["p(new)"] || ""]);
    }
  }
  return [...prompts].slice(0, 8).map(([prompt, { sample, sides }]) => {
    const more = Object.entries(sample).filter(([name, value]) => !["prompt", "before", "after", "says", "p(new)"].includes(name) && value !== null);
    return make("div", {}, make("h3", {}, prompt, more.map(([name, value]) => make("span", { class: "soft" }, ` · ${name} ${written(value)}`))),
      make("div", { class: "pair" }, sides.slice(0, 13).map(([side, text, p]) => make("div", { class: "said" }, make("h4", {}, side, p ? make("span", {}, ` · p(new) ${p}`) : null), written(text)))));
  });
}

function draw(main, run) {
  const running = run.ended === "running";
  part(main, "head", [run.run, run.ended, run.ran, run.cached, run.failed, running ? Math.floor(Date.now() / 1000) : 0], () => [
    make("h1", {}, run.pipeline, " ", chip(run.ended)),
    facts([["run", make("span", { class: "mono" }, run.run)], ["begun", `${when(run.started_ms)} (${ago(run.started_ms)})`],
      [running ? "so far" : "took", duration(((run.finished_ms || Date.now()) - run.started_ms) / 1000)], ["stages", `${run.ran} ran, ${run.cached} cached${run.failed ? `, ${run.failed} failed` : ""} of ${run.stages}`],
      ["memory", run.cost.peak_memory ? `${short(Number((run.cost.peak_memory / 1e9).toPrecision(3)))} GB at most` : null], ["energy", run.cost.joules ? `${short(Number((run.cost.joules / 3600).toPrecision(2)))} Wh (CPUs)` : null],
      ["device", run.device], ["host", run.host], ["file", run.file], ["program", run.program]]),
    make("p", { class: "row" }, make("a", { href: `/runs/${run.run}/report`, target: "_blank", rel: "noopener" }, "Report of this run"),
      run.ended === "lost" || run.ended === "stopped" || run.ended === "failed" ? make("span", { class: "note" }, "What was finished is kept: the same command goes on from there.") : null)]);
  part(main, "bars", [run.ended, run.live.counts.filter((count) => !count.ended)], () => bars(run));
  part(main, "stages", [run.members.map((member) => [member.state, member.seconds, member.more, member.lost]), open, running ? Math.floor(Date.now() / 1000) : 0], () => [make("h2", {}, "Stages"), stages(main, run)]);
  drawStage(main, run);
  part(main, "scores", run.members.map((member) => [member.shown.columns, member.cell]), () => { const drawn = scores(run); return drawn.length ? [make("h2", {}, "Scores and other numbers"), drawn] : null; });
  part(main, "curves", [run.live.curves, run.live.counts.map((count) => count.rates), losses], () => { const drawn = charts(run); return drawn.length ? [make("h2", {}, "Curves"), make("div", { class: "cards" }, drawn)] : null; });
  part(main, "warnings", run.live.warnings, () => (run.live.warnings.length ? [make("h2", {}, "Warnings"), run.live.warnings.slice(-20).map((warning) => make("p", { class: "error" }, warning))] : null));
  part(main, "samples", run.members.map((member) => member.shown.samples), () => { const drawn = samples(run); return drawn.length ? [make("h2", {}, "Samples"), drawn] : null; });
}

export async function show(main, { rest, first, current }) {
  const name = encodeURIComponent(rest[0] || "");
  if (first) { open = null; log = { at: null, text: "" }; told = new Map(); losses = null; }
  const { value: run } = await get(`/api/runs/${name}`);
  if (!current()) return 0;
  if (first) main.append(...["head", "bars", "scores", "curves", "stages", "stage", "samples", "warnings"].map((id) => make("div", { id })));
  draw(main, run);
  for (const member of run.members) {
    const before = told.get(member.instance);
    if (before === "working" && member.state !== "working") say(`${member.instance}: ${member.state}`);
    told.set(member.instance, member.state);
  }
  if (told.get("") === "running" && run.ended !== "running") say(`the run is ${run.ended}`);
  told.set("", run.ended);
  const found = run.members.filter((member) => member.uses === "targets" && ["ran", "cached"].includes(member.state));
  if (run.ended !== "running" && found.length && losses === null) {
    losses = [];
    get(`/api/runs/${name}/losses`).then(({ value }) => { losses = value.losses.filter((stage) => stage.traces.length); if (current()) draw(main, run); }).catch(() => {});
  }
  if (open !== null && (run.members[open]?.state === "working" || log.at !== open)) fetchLog(main, run);
  return run.ended === "running" ? 1000 : 5000;
}
