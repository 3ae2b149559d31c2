// The page: what is wanted stands in its address, what is answered is shown.

import { showBudget, showCommands, showDetails, showPlan, showRun, showVerdicts } from "./answers.js";
import { copyWith, find, make, makeField } from "./elements.js";
import { markKnob, showKnobs } from "./knobs.js";
import { ask, canBeGivenUp, openFiles } from "./transport.js";

/** After so many milliseconds a question that nobody waits for any more is given up. */
const PATIENCE = 250;
/** So long nothing has to change before it is asked what to change. */
const REST = 120;

/** Work that is done sooner is not spoken of. */
const SILENCE = 400;
/** What is taken off every card: its key, its name, and what it is. */
const ROOMS = [
  ["margin", "keep free", "kept free on every card, such as 512MiB"],
  ["other", "other programs", "what other programs hold on the card, such as 1GiB"],
];

const rooms = new Map();
let wanted = location.search.slice(1);
let mostCards = 1;
let asked = null; // the question about verdicts that is under way: {link, since, control}
let planned = null; // the one about a plan
let rest = null;
let patience = null;
let refused = null; // what was wrong with the last question
let latest = null; // the answer that is shown
let planCommand = "";

async function begin() {
  try {
    fillChoices(await ask("start", "", { hear }));
  } catch (problem) {
    showProblem(problem);
    return;
  }
  listen();
  await look();
}

function fillChoices(start) {
  mostCards = start.most_cards;
  find("version").textContent = `vramplan ${start.version}`;
  find("model").replaceChildren(...start.models.map((group) => make("optgroup", { label: group.title },
    group.models.map((model) => make("option", { value: model.name }, `${model.title} · ${model.name}`)))));
  find("known-cards").replaceChildren(...start.cards.flatMap((group) =>
    group.cards.map((card) => make("option", { value: card.name }, `${card.title} · ${group.title}`))));
}

function listen() {
  find("model").addEventListener("change", () => open(find("model").value));
  find("name").addEventListener("submit", (event) => { event.preventDefault(); open(find("named").value.trim()); });
  find("files").hidden = openFiles === null;
  find("file").addEventListener("change", () => read([...find("file").files]));
  find("add").addEventListener("submit", (event) => { event.preventDefault(); addCard(find("card").value); });
  find("card").addEventListener("input", (event) => {
    const isChosen = !(event instanceof InputEvent) || event.inputType === "insertReplacementText";
    if (isChosen) addCard(find("card").value);
  });
  find("reset").addEventListener("click", () => {
    const now = new URLSearchParams(wanted);
    for (const key of [...now.keys()]) if (!["target", "card", "show"].includes(key)) now.delete(key);
    want(now);
    find("knobs-title").focus();
  });
  find("copy-link").addEventListener("click", () => copyWith(find("copy-link"), location.href, "Copy link"));
  addEventListener("popstate", () => { wanted = location.search.slice(1); look(); });
}

// --------------------------------------------------------------------------------- what is wanted

/** Want another link; `isStep` makes it one that the browser's Back returns from. */
function want(parameters, isStep = false) {
  wanted = parameters.toString();
  history[isStep ? "pushState" : "replaceState"](null, "", `?${wanted}`);
  look();
}

/** Want a setting at another value, or at its default. */
function turn(key, value) {
  const now = new URLSearchParams(wanted);
  if (value === null || value === "") now.delete(key);
  else now.set(key, value);
  want(now);
}

/** Want another model, on the same cards. */
function open(target) {
  if (!target) return;
  const next = new URLSearchParams({ target });
  for (const card of new URLSearchParams(wanted).getAll("card")) next.append("card", card);
  want(next, true);
}

/** Want the model of files that the reader has chosen. */
async function read(files) {
  if (!files.length) return;
  try {
    const name = await openFiles(files, { hear });
    fillChoices(await ask("start", "", { hear }));
    open(name);
  } catch (problem) {
    showProblem(problem);
  }
  find("file").value = "";
}

/** Want what a link says. */
function go(link) {
  want(new URLSearchParams(link), true);
}

function choose(card) {
  turn("show", card);
}

function addCard(text) {
  const card = text.trim();
  const now = new URLSearchParams(wanted);
  if (!card || now.getAll("card").length >= mostCards) return;
  if (!now.getAll("card").includes(card)) now.append("card", card);
  now.delete("show");
  find("card").value = "";
  want(now, true);
}

function removeCard(card) {
  const now = new URLSearchParams(wanted);
  const left = now.getAll("card").filter((one) => one !== card);
  now.delete("card");
  now.delete("show");
  for (const one of left) now.append("card", one);
  want(now, true);
  find("card").focus();
}

// --------------------------------------------------------------------------------- what is answered

/** Ask for what is wanted now, unless a question is under way: then it is asked after that one. */
async function look() {
  clearTimeout(rest);
  planned?.control.abort();
  if (asked) {
    if (canBeGivenUp && performance.now() - asked.since > PATIENCE) asked.control.abort();
    return;
  }
  while (asked?.link !== wanted) {
    asked = { link: wanted, since: performance.now(), control: new AbortController() };
    find("found").setAttribute("aria-busy", "true");
    planCommand = "";
    find("plan").setAttribute("aria-busy", "true"); // it is another's until it is asked for anew
    try {
      const found = await ask("verdicts", asked.link, { signal: asked.control.signal, hear });
      show(found, asked.link);
    } catch (problem) {
      if (problem.name === "AbortError") continue;
      showProblem(problem);
      if (!latest && problem.error && wanted) wanted = without(problem.key); // a page to put it right on
    }
  }
  asked = null;
  find("found").removeAttribute("aria-busy");
  hush();
  rest = setTimeout(plan, REST);
}

/** Return what is wanted less the setting that cannot be taken, or less everything but the cards. */
function without(key) {
  const left = new URLSearchParams(wanted);
  const had = key !== null && left.has(key);
  for (const name of [...left.keys()]) if (had ? name === key : name !== "card") left.delete(name);
  return left.toString() === wanted ? "" : left.toString();
}

function show(found, link) {
  find("loading")?.remove();
  find("problem").hidden = latest !== null || refused === null;
  refused = null;
  find("found").hidden = false;
  if (link === wanted) {
    wanted = found.link;
    asked.link = found.link;
    history.replaceState(null, "", `?${found.link}`);
    showKnobs(found.knobs, turn);
    showCards(found);
    showRoom(found);
    markKnob(null);
    find("model").value = found.model.name;
    find("named").value = "";
    find("about").textContent = `${found.model.summary} Runs in ${found.model.runtime}.`;
    find("reset").hidden = !found.changed.length && !found.margin && !found.other;
    document.title = `${found.said} · vramplan`;
    if (find("said").textContent !== found.said) find("said").textContent = found.said;
  }
  showVerdicts(found, choose);
  latest = found;
  setTimeout(() => { if (latest === found) explain(found); }); // the verdict is seen first
}

function explain(found) {
  showBudget(found.budget);
  showRun(found.run);
  showDetails(found);
  showCommands([found.command, planCommand]);
}

function showCards(found) {
  find("cards").replaceChildren(...found.verdicts.map((verdict) => make("li", {},
    make("span", { title: verdict.title }, verdict.card),
    found.verdicts.length > 1 && make("button", { type: "button", "aria-label": `remove ${verdict.card}`, click: () => removeCard(verdict.card) }, "×"))));
  find("add").hidden = found.verdicts.length >= mostCards;
}

/** Show the two sizes that are taken off every card. */
function showRoom(found) {
  if (!rooms.size) for (const [key, label, help] of ROOMS) {
    const about = { id: `room-${key}`, maxlength: 40, placeholder: "0 MiB", "aria-describedby": `help-${key}` };
    const { field, show } = makeField(about, (value) => turn(key, value));
    rooms.set(key, show);
    find("room").append(make("div", { class: "knob" },
      make("label", { for: `room-${key}` }, label), field, make("p", { class: "help", id: `help-${key}` }, help)));
  }
  for (const [key, show] of rooms) show(found[key]);
}

function showProblem(problem) {
  refused = problem;
  const said = problem.error ?? "the program that answers is gone: start it again, and reload this page";
  find("problem").replaceChildren(make("p", {}, make("b", {}, said)), ...(problem.hint ? [make("p", {}, problem.hint)] : []));
  find("loading")?.remove();
  find("problem").hidden = false;
  hush();
  markKnob(problem.key ?? null);
}

/** Say what is being done, once it has taken a while. */
function hear(step) {
  const loading = find("loading");
  if (loading) {
    if (step) loading.textContent = step;
    return;
  }
  find("progress").textContent = step;
  patience ??= setTimeout(() => { find("progress").hidden = false; }, SILENCE);
}

/** Say nothing any more: it is done. */
function hush() {
  clearTimeout(patience);
  patience = null;
  find("progress").hidden = true;
}

/** Ask what to change, once nothing has moved for a while. */
async function plan() {
  if (refused !== null) {
    find("plan").removeAttribute("aria-busy");
    return;
  }
  const shown = new URLSearchParams(wanted);
  shown.set("show", document.querySelector("#verdicts input:checked").value);
  planned = { control: new AbortController() };
  const { signal } = planned.control;
  try {
    const found = await ask("plan", shown.toString(), { signal, hear });
    if (signal.aborted) return;
    showPlan(found, go);
    planCommand = found.command;
    showCommands([latest.command, planCommand]);
  } catch (problem) {
    if (signal.aborted || problem.name === "AbortError") return;
    find("plan").replaceChildren(make("p", {}, problem.error ?? "no answer"));
  }
  find("plan").removeAttribute("aria-busy");
  hush();
}

begin();
