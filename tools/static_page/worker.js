// A worker of the browser in which Python runs: vramplan answers here, and the page stays responsive.

import { loadPyodide } from "./pyodide/pyodide.mjs";

/** Where the package lies in the worker's own file system. */
const HOME = "/vramplan-package";

let mounted = 0;
const ready = begin();

addEventListener("message", async ({ data: { id, question, link, files } }) => {
  try {
    const { answering, system } = await ready;
    const tell = (step) => postMessage({ id, step });
    postMessage({ id, said: files ? answering.open(mount(system, files)) : answering(question, link, tell) });
  } catch (problem) {
    postMessage({ id, said: JSON.stringify({ problem: { error: `Python could not be run: ${problem.message}`, hint: "", key: null } }) });
  }
});

async function begin() {
  const files = fetchJson("files.json");
  const archive = fetch("vramplan.zip").then((reply) => reply.arrayBuffer());
  const python = await loadPyodide({ indexURL: new URL("pyodide/", location.href).href });
  python.unpackArchive(await archive, "zip", { extractDir: HOME });
  offer(python.FS, await files);
  python.runPython(`import sys; sys.path.insert(0, ${JSON.stringify(HOME)})`);
  return { answering: python.pyimport("vramplan.page.in_browser").Answering(), system: python.FS };
}

/** Put files of the reader's into a folder, without copying them; return the path of the model. */
function mount(system, files) {
  mounted += 1;
  const folder = `/files-${mounted}`;
  system.mkdir(folder);
  system.mount(system.filesystems.WORKERFS, { files }, folder);
  const model = files.find((file) => !file.name.toLowerCase().includes("mmproj")) ?? files[0];
  return `${folder}/${model.name}`;
}

async function fetchJson(address) {
  return (await fetch(address)).json();
}

/** Let the large files be there, and be fetched when one is read. */
function offer(system, files) {
  for (const { folder, name, address } of files) {
    system.mkdirTree(`${HOME}/${folder}`);
    system.createLazyFile(`${HOME}/${folder}`, name, new URL(address, location.href).href, true, false);
  }
}
