// The settings: one control each, which stays where it is while its value changes.

import { find, make, makeField } from "./elements.js";

/** Words of a choice are buttons beside each other up to so many, and so many letters; then a list. */
const MOST_BUTTONS = 5;
const MOST_LETTERS = 27;

let shown = new Map();
let shape = "";

/** Show a model's settings; `turn(key, value)` is called when one is moved, with null for its default. */
export function showKnobs(knobs, turn) {
  const wanted = JSON.stringify(knobs.map((knob) => [knob.key, knob.kind, knob.words]));
  if (wanted !== shape) {
    shape = wanted;
    shown = new Map(knobs.map((knob) => [knob.key, makeKnob(knob, turn)]));
    const place = (isFirst) => knobs.filter((knob) => knob.is_first === isFirst).map((knob) => shown.get(knob.key).root);
    find("first-knobs").replaceChildren(...place(true));
    find("other-knobs").replaceChildren(...place(false));
  }
  for (const knob of knobs) shown.get(knob.key).update(knob);
}

/** Mark the setting that cannot be taken, and no other. */
export function markKnob(key) {
  for (const [name, knob] of shown) knob.mark(name === key);
}

function makeKnob(knob, turn) {
  const letters = knob.words.join("").length;
  const isShort = knob.words.length <= MOST_BUTTONS && letters <= MOST_LETTERS;
  const make = knob.kind !== "choice" ? makeValue : isShort ? makeButtons : makeList;
  return make(knob, turn);
}

function resetButton(knob, turn) {
  const button = make("button", { type: "button", class: "quiet reset", hidden: true }, "reset");
  button.setAttribute("aria-label", `reset ${knob.label} to ${knob.default}`);
  button.title = `reset to ${knob.default}`;
  button.addEventListener("click", () => turn(knob.key, null));
  return button;
}

function help(knob) {
  return make("p", { class: "help", id: `help-${knob.key}` }, knob.help);
}

function makeButtons(knob, turn) {
  const reset = resetButton(knob, turn);
  const inputs = new Map(knob.words.map((word) => [word, make("input", {
    type: "radio", name: knob.key, value: word, change: () => turn(knob.key, word),
  })]));
  const root = make("fieldset", { class: "knob", "aria-describedby": `help-${knob.key}` },
    make("legend", {}, knob.label), reset,
    make("div", { class: "segments" }, [...inputs].map(([word, input]) => make("label", {}, input, make("span", {}, word)))),
    help(knob));
  return {
    root,
    update: (now) => { inputs.get(now.value).checked = true; changed(root, reset, now); },
    mark: (isWrong) => root.classList.toggle("wrong", isWrong),
  };
}

function makeList(knob, turn) {
  const reset = resetButton(knob, turn);
  const id = `knob-${knob.key}`;
  const list = make("select", { id, "aria-describedby": `help-${knob.key}` },
    knob.words.map((word) => make("option", { value: word }, word)));
  list.addEventListener("change", () => turn(knob.key, list.value));
  const root = make("div", { class: "knob" }, make("label", { for: id }, knob.label), reset, list, help(knob));
  return {
    root,
    update: (now) => { list.value = now.value; changed(root, reset, now); },
    mark: (isWrong) => root.classList.toggle("wrong", isWrong),
  };
}

function makeValue(knob, turn) {
  const reset = resetButton(knob, turn);
  const id = `knob-${knob.key}`;
  let stops = knob.stops;
  const about = { id, maxlength: 1000, "aria-describedby": `help-${knob.key}` };
  const { field: text, show } = makeField(about, (value) => turn(knob.key, value));
  const slider = make("input", { type: "range", min: 0, "aria-label": `${knob.label}, by steps` });
  slider.addEventListener("input", () => {
    const value = stops[slider.value];
    show(value);
    slider.setAttribute("aria-valuetext", value);
    turn(knob.key, value);
  });
  const root = make("div", { class: "knob" }, make("label", { for: id }, knob.label), reset, text, slider, help(knob));
  return {
    root,
    update: (now) => {
      stops = now.stops;
      slider.hidden = !stops.length;
      slider.max = now.last_stop;
      if (now.stop !== null) slider.value = now.stop;
      slider.setAttribute("aria-valuetext", now.value);
      show(now.value);
      changed(root, reset, now);
    },
    mark: (isWrong) => {
      root.classList.toggle("wrong", isWrong);
      text.setAttribute("aria-invalid", isWrong);
    },
  };
}

function changed(root, reset, knob) {
  const isChanged = knob.value !== knob.default;
  root.classList.toggle("changed", isChanged);
  if (!isChanged && document.activeElement === reset) root.querySelector("input, select").focus();
  reset.hidden = !isChanged;
}
