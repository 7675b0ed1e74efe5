// A fact typed in, and what a model makes of it before and after an edit.
import { get, part, post, say, look } from "./app.js";
import { make, duration, written } from "./draw.js";

let models = [];
let said = 0;
let typed = "";

function chosenModel(main) {
  return models[Number(main.querySelector("#model").value)];
}

function frame(main, rest) {
  const wanted = models.findIndex((model) => model.run === rest[0] && String(model.at) === rest[1]);
  const edited = models.findIndex((model) => model.edited);
  const select = make("select", { id: "model" }, models.map((model, at) => make("option", { value: at }, `${model.edited ? "" : "unedited: "}${model.pipeline} · ${model.instance} · ${model.run}`)));
  select.value = String(wanted >= 0 ? wanted : Math.max(edited, 0));
  const prompts = make("textarea", { id: "prompts", rows: 4, required: true, maxlength: 20000, "aria-describedby": "prompts-how", spellcheck: "false", value: typed, oninput: (event) => { typed = event.target.value; },
    placeholder: "The Eiffel Tower is located in the city of" });
  const tokens = make("input", { id: "tokens", type: "number", min: 1, max: 200, value: "20" });
  const form = make("form", { class: "ask", onsubmit: async (event) => {
    event.preventDefault();
    const model = chosenModel(main);
    const lines = prompts.value.split("\n").map((line) => line.trimEnd()).filter((line) => line.trim());
    part(main, "wrong", "", () => null);
    try {
      if (!lines.length) throw new Error("A prompt is needed.");
      await post("/api/ask", { run: model.run, stage: model.at, prompts: lines, tokens: Number(tokens.value) });
      say("asking");
    } catch (error) {
      part(main, "wrong", error.message, () => make("p", { class: "error", role: "alert" }, error.message));
    }
    look();
  } },
    make("div", {}, make("label", { for: "model" }, "Model"), select),
    make("div", {}, make("label", { for: "prompts" }, "Prompts"), prompts, make("p", { class: "note", id: "prompts-how" }, "One a line; the model goes on from each. An edited model answers before and after its edit.")),
    make("div", { class: "row" }, make("label", { for: "tokens" }, "Tokens"), tokens, make("button", { class: "main", id: "ask", type: "submit" }, "Ask"),
      make("button", { id: "stop", type: "button", hidden: true, onclick: () => post("/api/ask/stop", {}).then(look) }, "Stop")));
  prompts.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  main.append(make("h1", {}, "Ask a model"), form, make("div", { id: "wrong" }), make("div", { id: "answers" }));
}

function side(name, prompt, answer) {
  if (!answer) return null;
  const next = answer.next.map((token) => make("li", {}, make("span", { class: "mono" }, JSON.stringify(token.token)), make("meter", { min: 0, max: 1, value: token.p, "aria-hidden": "true" }), make("span", { class: "number" }, written(token.p, "percent"))));
  return make("div", { class: "said" }, make("h4", {}, name), make("p", {}, make("span", { class: "prompt" }, prompt), answer.text), make("ol", { "aria-label": "most probable next tokens" }, next));
}

function answers(state) {
  if (state.state === "never") return null;
  const of = `${state.of.stage} of ${state.of.run}`;
  if (state.state === "busy") return [make("h2", {}, "Asking"), make("p", { class: "note" }, `${of}: ${state.prompts.length} prompts. The model is loaded first, which takes longer than the answer.`), make("progress", { "aria-label": "asking" })];
  if (state.state === "stopped") return make("p", { class: "note" }, "stopped");
  if (state.state === "failed") return make("p", { class: "error", role: "alert" }, state.message, state.hint ? `\nhint: ${state.hint}` : "");
  return [make("h2", {}, "Answers"), make("p", { class: "note" }, `${of}, in ${duration(state.seconds)}`), state.answers.map((answer) => make("div", {}, make("h3", {}, answer.prompt),
    make("div", { class: "pair" }, answer.after ? [side("before", answer.prompt, answer.before), side("after", answer.prompt, answer.after)] : side("says", answer.prompt, answer.before))))];
}

export async function show(main, { rest, first, current }) {
  if (first) {
    models = (await get("/api/models")).value.models;
    if (!current()) return 0;
    if (!models.length) {
      main.append(make("h1", {}, "Ask a model"), make("p", { class: "note" }, "No run has a model yet."));
      return 5000;
    }
    frame(main, rest);
  }
  if (!models.length) return 5000;
  const { value: state } = await get("/api/ask");
  if (!current()) return 0;
  const busy = state.state === "busy";
  main.querySelector("#ask").disabled = busy;
  main.querySelector("#stop").hidden = !busy;
  if (state.number && state.number !== said) {
    if (said || !first) say(state.state === "done" ? "the answers are there" : state.state);
    said = state.number;
  }
  part(main, "answers", state, () => answers(state));
  return busy ? 400 : 3000;
}
