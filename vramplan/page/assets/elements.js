// Elements and pictures. What comes from a model's file can only become text.

/** Return an element; `true` gives an attribute without a value, `false` and `null` none. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  fill(made, ...children);
  return made;
}

/** Let an element have these children and no others; `null` and `false` are none. */
export function fill(place, ...children) {
  place.replaceChildren(...children.flat().filter((child) => child != null && child !== false && child !== ""));
}

/** Return a drawing that came as text; it is parsed as a drawing alone, and runs nothing. */
export function picture(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
  return document.importNode(parsed.documentElement, true);
}

/** Return the element of an `id`. */
export function find(id) {
  return document.getElementById(id);
}

/** Return a button that copies what `text()` returns, and says so. */
export function copyButton(text, label) {
  const button = make("button", { type: "button", class: "copy", "aria-label": label }, "Copy");
  button.addEventListener("click", () => copyWith(button, text(), "Copy"));
  return button;
}

/** Copy `text`, and let `button` say so for a while instead of `word`. */
export async function copyWith(button, text, word) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyOldWay(text); // where the page was not reached by https or localhost
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = word; }, 1500);
}

function copyOldWay(text) {
  const area = make("textarea", { class: "hidden", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Return a field for text: `take(value)` hears what was typed, and `show` leaves what is being typed. */
export function makeField(attributes, take) {
  const field = make("input", { type: "text", spellcheck: "false", autocomplete: "off", ...attributes });
  let known = "";
  field.addEventListener("change", () => { known = field.value; take(known); });
  const show = (value) => {
    if (document.activeElement === field && field.value !== known) return;
    field.value = known = value;
  };
  return { field, show };
}
