// How the page asks the server that it came from.

/** Return the answer to a question about a link; throws what is wrong as `{error, hint, key}`. */
export async function ask(question, link, { signal, hear } = {}) {
  hear?.("Working it out…");
  const reply = await fetch(`answer/${question}?${link}`, { signal });
  const isOurs = reply.headers.get("Content-Type") === "application/json";
  if (!isOurs) throw { error: `the server says ${reply.status}: it cannot be asked so`, hint: "", key: null };
  const found = await reply.json();
  if (!reply.ok) throw found;
  return found;
}

/** A question that nobody waits for any more is given up by the server. */
export const canBeGivenUp = true;

/** A server opens no files that a browser has. */
export const openFiles = null;
