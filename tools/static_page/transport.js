// How the page asks the Python that runs in the browser itself.

/** A question that nobody waits for any more may go on for so long; then the worker is replaced. */
const PATIENCE = 2500;

/** A question cannot be given up: the worker answers one after the other. */
export const canBeGivenUp = false;

const LOADING = "Loading Python and vramplan into this browser: some 15 MB, the first time…";

let worker = null;
let isReady = false;
let head = null; // the question that is being answered
let headTimer = null;
let last = 0;
const waiting = new Map();
const opened = []; // lists of files: another worker is given them again

/** Return the answer to a question about a link; throws what is wrong as `{error, hint, key}`. */
export function ask(question, link, { signal, hear } = {}) {
  return wait({ message: { question, link }, signal, hear });
}

/** Return the name of the model in some files, which this browser reads and sends nowhere. */
export async function openFiles(files, { hear } = {}) {
  const name = await wait({ message: { files }, hear });
  opened.push(files);
  return name;
}

function wait({ message, signal, hear }) {
  return new Promise((resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason));
    last += 1;
    waiting.set(last, { message, signal, hear, resolve, reject });
    worker ??= start();
    post(last);
    if (!isReady) hear?.(LOADING);
  });
}

function start() {
  const made = new Worker("worker.js", { type: "module" });
  made.addEventListener("message", ({ data }) => { if (made === worker) take(data); });
  made.addEventListener("error", () => { if (made === worker) fail("vramplan could not be loaded into this browser"); });
  return made;
}

function post(id) {
  worker.postMessage({ id, ...waiting.get(id).message });
  if (head === null) begin(id);
}

/** Look, after a while, whether anybody still waits for the question that is being answered. */
function begin(id) {
  head = id;
  clearTimeout(headTimer);
  if (id !== null) headTimer = setTimeout(look, PATIENCE);
}

function look() {
  if (isReady && waiting.get(head)?.signal?.aborted) replace();
  else headTimer = setTimeout(look, PATIENCE);
}

/** Begin anew with another worker, and ask it what somebody still waits for. */
function replace() {
  worker.terminate();
  isReady = false;
  begin(null);
  for (const [id, { signal }] of waiting) if (signal?.aborted) waiting.delete(id);
  const wanted = [...waiting.keys()];
  worker = start();
  for (const files of opened) wait({ message: { files } }).catch(() => null);
  for (const id of wanted) post(id);
}

function take({ id, step, said }) {
  isReady = true;
  const asked = waiting.get(id);
  if (said === undefined) {
    if (!asked.signal?.aborted) asked.hear?.(step);
    return;
  }
  waiting.delete(id);
  begin(waiting.keys().next().value ?? null);
  const { found, problem } = JSON.parse(said);
  if (problem) asked.reject(problem);
  else asked.resolve(found);
}

function fail(error) {
  for (const { reject } of waiting.values()) reject({ error, hint: "", key: null });
  waiting.clear();
  begin(null);
}
