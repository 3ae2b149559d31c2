// What was answered, put where it belongs. Every figure and every word came with the answer.

import { copyButton, fill, find, make, picture } from "./elements.js";

const tiles = new Map();
const tables = new Map();

/** Show a verdict a card; `choose(card)` is called with the card that is to be explained. */
export function showVerdicts(found, choose) {
  const cards = found.verdicts.map((verdict) => verdict.card);
  const isNew = cards.length !== tiles.size || cards.some((card) => !tiles.has(card));
  if (isNew) {
    tiles.clear();
    for (const card of cards) tiles.set(card, makeTile(card, choose));
    find("verdicts").replaceChildren(...[...tiles.values()].map((tile) => tile.root));
  }
  for (const verdict of found.verdicts) tiles.get(verdict.card).update(verdict, verdict.card === found.shown);
  const shown = found.verdicts.find((verdict) => verdict.card === found.shown);
  find("reason").replaceChildren(make("b", {}, shown.card), `: ${shown.reason}`);
  find("strip").replaceChildren(...found.verdicts.map((verdict) =>
    make("span", { class: `chip ${verdict.kind}` }, `${verdict.card} ${verdict.sign} ${verdict.kind}`)));
}

function makeTile(card, choose) {
  const input = make("input", { type: "radio", name: "shown", value: card, class: "hidden", change: () => choose(card) });
  const body = make("span", { class: "body" });
  const root = make("label", {}, input, body);
  return {
    root,
    update: (verdict, isShown) => {
      root.className = `tile ${verdict.kind}`;
      input.checked = isShown;
      input.setAttribute("aria-label", `${verdict.card}: ${verdict.word}, needs ${verdict.need} of ${verdict.budget}, ${verdict.room}`);
      body.replaceChildren(
        make("span", { class: "card" }, make("b", {}, verdict.card), make("small", {}, verdict.title)),
        make("span", { class: "word", title: verdict.meaning }, `${verdict.sign} ${verdict.word}`),
        picture(verdict.meter),
        make("span", { class: "needs" }, `needs ${verdict.need} `, make("small", {}, `of ${verdict.budget}`)),
        make("span", { class: "room" }, verdict.room),
        make("span", { class: "fine" }, [
          make("code", {}, verdict.kind),
          verdict.spread === "exact" ? "exact" : `between ${verdict.spread}`,
          `risk ${verdict.risk}`,
          verdict.layers,
          verdict.judged && `judged as ${verdict.judged}`,
        ].filter(Boolean).flatMap((one, place) => (place ? [" · ", one] : [one]))),
      );
    },
  };
}

/** Show what is on the card at the peak. */
export function showBudget(budget) {
  fill(find("budget"),
    make("p", { class: "lead" }, make("b", {}, budget.used), ` in use at the peak, ${budget.when}: ${budget.place}`),
    make("div", { class: "whole" }, picture(budget.bar)),
    make("p", { class: "fine" }, budget.is_marked ? `The mark is what the card offers, ${budget.offer}.` : `The card offers ${budget.offer}, more than there is room to draw.`),
    make("ul", { class: "legend" }, budget.legend.map((one) =>
      make("li", {}, picture(one.swatch), ` ${one.label} `, make("b", {}, one.size)))),
    make("ul", { class: "rows" }, budget.rows.map((row) => make("li", {},
      make("span", { class: "name" }, row.name),
      make("span", { class: "size" }, row.size),
      picture(row.bar),
      make("span", { class: "fine" }, row.parts)))),
  );
}

/** Show the run's memory as it goes. */
export function showRun(run) {
  fill(find("run"),
    run.timeline && make("div", { class: "picture" }, picture(run.timeline), picture(run.narrow)),
    run.timeline && make("p", { class: "keys fine" }, run.swatches.map((one) => make("span", {}, picture(one.swatch), ` ${one.label}`))),
    make("dl", { class: "summary" }, run.summary.map((one) => make("div", {}, make("dt", {}, one.label), make("dd", {}, one.text)))),
  );
}

function scrolling(label, ...children) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, children);
}

/** Show what should be known, and every figure; a table is drawn when somebody opens it. */
export function showDetails(found) {
  fill(find("notes"), found.notes.length > 0 && make("ul", { class: "notes" }, found.notes.map((note) => make("li", {}, note))));
  const titles = found.details.map((table) => table.title);
  for (const table of found.details) {
    if (!tables.has(table.title)) tables.set(table.title, makeDetails(table.title));
    tables.get(table.title).update(table);
  }
  for (const [title, { root }] of tables) {
    if (!titles.includes(title)) root.remove();
    else if (!root.isConnected) find("details").append(root);
  }
}

function makeDetails(title) {
  const place = make("div");
  const root = make("details", {}, make("summary", {}, title), place);
  let table = null;
  const draw = () => { if (root.open) fill(place, drawTable(table)); };
  root.addEventListener("toggle", draw);
  return { root, update: (now) => { table = now; draw(); } };
}

function drawTable(table) {
  const cell = (tag, column, ...children) => make(tag, { class: column.is_figure ? "figure" : null }, children);
  return scrolling(table.title,
    make("table", {},
      make("thead", {}, make("tr", {}, table.columns.map((column) => make("th", { scope: "col", class: column.is_figure ? "figure" : null }, column.header)))),
      make("tbody", {}, table.rows.map((row) => make("tr", {}, row.map((one, place) =>
        cell("td", table.columns[place], make("span", { class: one.tone || null }, one.text), one.detail && make("small", {}, ` ${one.detail}`))))))),
    table.notes.length > 0 && make("ol", { class: "sources fine" }, table.notes.map((note) => make("li", {}, note))));
}

/** Show what to type in a terminal. */
export function showCommands(commands) {
  find("commands").replaceChildren(...commands.filter(Boolean).map((command) => code(command, "copy the command")));
}

function code(text, label) {
  return make("div", { class: "code" }, make("pre", { tabindex: 0 }, make("code", {}, text)), copyButton(() => text, label));
}

/** Show what to change; `go(link)` takes a way as the page's settings. */
export function showPlan(plan, go) {
  const options = plan.options.map((option, place) => drawOption(option, place + 1, go));
  const sizes = plan.largest.filter((one) => one.link !== null);
  fill(find("plan"),
    make("p", { class: "lead" }, make("b", {}, plan.card), `: ${plan.summary}`),
    options.length > 0 && make("ol", { class: "options" }, options),
    plan.everything && make("ol", { class: "options" }, drawOption(plan.everything, null, go)),
    plan.beside.length > 0 && make("ul", { class: "options" }, plan.beside.map(drawAdvice)),
    (plan.largest.length > 0 || plan.smallest) && make("ul", { class: "facts" },
      plan.largest.length > 0 && make("li", {}, make("span", { class: "label" }, "Largest that fits"), " ",
        sizes.length > 0 ? sizes.map((one) => make("button", { type: "button", class: "try", title: one.words, click: () => go(one.link) }, `${one.name} ${one.value}`)) : "none"),
      plan.smallest && make("li", {}, make("span", { class: "label" }, "Fits as it is on"), ` ${plan.smallest}`)),
    plan.notes.length > 0 && make("details", { class: "aside" }, make("summary", {}, "How this was found"),
      make("ul", { class: "notes" }, plan.notes.map((note) => make("li", {}, note)))),
  );
}

function drawOption(option, number, go) {
  const lines = option.lines.join("\n");
  return make("li", { class: "option" },
    make("div", { class: "head" },
      make("h3", {}, number === null ? "All of it: " : make("span", { class: "number" }, `${number}`), ` ${option.settings}`),
      make("span", { class: `chip ${option.kind}` }, `${option.sign} ${option.kind}`)),
    code(lines, `copy the lines of ${option.settings}`),
    make("p", { class: "figures" }, `needs ${option.need} · saves ${option.saves} · ${option.room}`, option.time && option.time !== "–" && ` · time ${option.time}`),
    make("p", { class: "fine" }, `cost: ${option.cost}`),
    make("button", { type: "button", class: "try", click: () => go(option.link) }, "Try it"));
}

function drawAdvice(advice) {
  return make("li", { class: "option" }, code(advice.change, "copy the advice"),
    make("p", { class: "figures" }, advice.effect), make("p", { class: "fine" }, `cost: ${advice.cost}`));
}
