"use strict";

const element = (id) => document.getElementById(id);
let panorama = null;

async function post(path) {
  const range = element("range").value;
  const answer = await fetch(`${path}&range=${range}`, { method: "POST", body: panorama });
  if (answer.ok) return answer;
  const problem = await answer.json();
  throw new Error(`${problem.title}: ${problem.detail}`);
}

async function attempt(work) {
  element("status").textContent = "…";
  try {
    element("status").textContent = await work();
  } catch (error) {
    element("status").textContent = error.message;
  }
}

async function showPreview() {
  const answer = await post("/depth?format=jpeg");
  URL.revokeObjectURL(element("preview").src);
  element("preview").src = URL.createObjectURL(await answer.blob());
  element("preview").hidden = element("links").hidden = false;
  return `${answer.headers.get("X-Model")}: ${answer.headers.get("Server-Timing").replaceAll(";dur=", " ")} ms`;
}

async function download(button) {
  const link = document.createElement("a");
  const answer = await post(button.dataset.path);
  link.href = URL.createObjectURL(await answer.blob());
  link.download = button.dataset.name;
  link.click();
  URL.revokeObjectURL(link.href);
  return button.dataset.name;
}

function take(file) {
  if (!file) return;
  panorama = file;
  attempt(showPreview);
}

element("file").addEventListener("change", (event) => take(event.target.files[0]));
element("range").addEventListener("change", () => panorama && attempt(showPreview));
for (const button of document.querySelectorAll("button")) {
  button.addEventListener("click", () => attempt(() => download(button)));
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
