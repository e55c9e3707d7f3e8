"use strict";

const element = (id) => document.getElementById(id);
// Which of the choices each path knows: the service refuses what it does not.
const DEPTH = ["range", "resolution", "upsample", "camera_height", "nadir_mask", "seam"];
const CHOICES = {
  "/depth": DEPTH,
  "/pointcloud": [...DEPTH, "frame", "max_edge"],
  "/normals": [...DEPTH, "frame"],
  "/views": [...DEPTH, "frame"],
};
const PICTURES = ["jpeg", "png-preview"];
let panorama = null;
let running = new AbortController();

function address(path, format) {
  const chosen = new FormData(element("options"));
  const known = format.split(",").some((name) => PICTURES.includes(name)) ? [...CHOICES[path], "colormap"] : CHOICES[path];
  const query = new URLSearchParams({ format });
  for (const name of known) if (chosen.get(name)) query.set(name, chosen.get(name));
  return `${path}?${query}`;
}

function authorization() {
  return element("key").value ? { Authorization: `Bearer ${element("key").value}` } : {};
}

// A model that is offered at one resolution leaves nothing to choose.
async function offerResolutions() {
  const answer = await fetch("/models", { headers: authorization() });
  const [model] = answer.ok ? (await answer.json()).models : [{ resolutions: [] }];
  const offered = model.resolutions.length > 1 ? model.resolutions : [];
  element("resolution").replaceChildren(...offered.map((name) => new Option(name)));
  element("resolutions").hidden = !offered.length;
}

async function post(path, format, accept) {
  const headers = { Accept: accept, ...authorization() };
  const answer = await fetch(address(path, format), { method: "POST", body: panorama, headers, signal: running.signal });
  if (answer.ok) return answer;
  if (answer.status === 401) element("locked").hidden = false;
  const problem = await answer.json();
  throw new Error(`${problem.title}: ${problem.detail}`);
}

// The parts of a multipart answer. Each byte is one character of latin1, so places in the text are places in the bytes.
async function partsOf(answer) {
  const delimiter = `--${answer.headers.get("Content-Type").split("boundary=")[1]}`;
  const bytes = await answer.arrayBuffer();
  const text = new TextDecoder("latin1").decode(bytes);
  const parts = [];
  for (let start = 0; text.startsWith(`${delimiter}\r\n`, start); ) {
    const body = text.indexOf("\r\n\r\n", start) + 4;
    const end = text.indexOf(`\r\n${delimiter}`, body);
    parts.push(bytes.slice(body, end));
    start = end + 2;
  }
  return parts;
}

// Starts afresh: what ran before is given up, here and in the service.
async function attempt(what, work) {
  running.abort();
  const mine = (running = new AbortController());
  element("main").setAttribute("aria-busy", "true");
  element("status").textContent = `${what} …`;
  try {
    element("status").textContent = await work();
  } catch (error) {
    if (mine === running) element("status").textContent = error.message;
  }
  if (mine === running) element("main").removeAttribute("aria-busy");
}

async function showDepth() {
  const answer = await post("/depth", "json,jpeg", "multipart/mixed");
  const [json, jpeg] = await partsOf(answer);
  const said = JSON.parse(new TextDecoder().decode(json));
  URL.revokeObjectURL(element("preview").src);
  element("preview").src = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
  element("preview").alt = describe(said);
  element("result").hidden = false;
  tabulate({
    nearest: said.min, median: said.median, mean: said.mean, farthest: said.max,
    "valid share": said.valid_share, ...(said.scale_factor === 1 ? {} : { "scale factor": said.scale_factor }),
  });
  return `${said.model}: ${answer.headers.get("Server-Timing").replaceAll(";dur=", " ")} ms`;
}

function describe(said) {
  if (!said.valid_share) return "Depth of the panorama: nothing is within the range";
  return `Depth of the panorama, ${said.width} by ${said.height} pixels: ${said.min} to ${said.max} metres, half of it nearer than ${said.median}`;
}

function tabulate(rows) {
  element("statistics").tBodies[0].replaceChildren(...Object.entries(rows).map(([name, value]) => {
    const row = document.createElement("tr");
    const title = document.createElement("th");
    title.scope = "row";
    title.textContent = name;
    row.append(title);
    row.insertCell().textContent = value?.toFixed(2) ?? "none";
    return row;
  }));
}

async function download({ path, format }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await post(path, format, "*/*")).blob());
  link.download = `${path.slice(1)}.${{ jpeg: "jpg", "exr-half": "half.exr", "png-preview": "preview.png" }[format] ?? format}`;
  link.click();
  URL.revokeObjectURL(link.href);
  return link.download;
}

function show() {
  if (panorama && element("options").reportValidity()) attempt("Asking for depth", showDepth);
}

function take(file) {
  if (!file) return;
  panorama = file;
  show();
}

element("file").addEventListener("change", (event) => take(event.target.files[0]));
element("options").addEventListener("change", (event) => event.target !== element("key") && show());
element("options").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!element("resolution").length) offerResolutions(); // the key may open what was locked before
  show();
});
element("downloads").addEventListener("click", (event) => {
  const asked = event.target.dataset;
  if (asked.path) attempt(`Asking for ${asked.path.slice(1)} as ${asked.format}`, () => download(asked));
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
offerResolutions();
