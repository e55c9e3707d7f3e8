"use strict";

function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

function table(title, rows) {
  if (!rows.length) return "";
  const body = rows.map(([name, what, text]) =>
    make("tr", "", make("td", "", make("code", name)), make("td", "", make("code", what)), make("td", text)));
  const details = make("details", "", make("summary", title), make("table", "", ...body));
  details.open = title === "parameters";
  return details;
}

function kind(schema = {}) {
  const options = schema.anyOf?.filter((option) => option.type !== "null") ?? [schema];
  return options.map((option) => option.enum?.join(" | ") ?? option.pattern ?? option.type ?? "").join(" | ");
}

function withDefault(schema) {
  return schema.default == null ? kind(schema) : `${kind(schema)} = ${schema.default}`;
}

function example(method, path, operation) {
  if (!operation.requestBody) return `curl ${location.origin}${path}`;
  return `curl -H 'Content-Type: image/jpeg' --data-binary @panorama.jpg ${location.origin}${path} --output answer`;
}

function describe(method, path, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) =>
    [parameter.name, withDefault(parameter.schema), parameter.description ?? parameter.in]);
  const bodies = Object.keys(operation.requestBody?.content ?? {}).map((type) => [type, "", ""]);
  const answers = Object.entries(operation.responses).map(([status, answer]) =>
    [status, Object.keys(answer.content ?? {}).join(", "), answer.description]);
  const headers = Object.entries(operation.responses["200"]?.headers ?? {}).map(([name, header]) =>
    [name, "", header.description]);
  return make("section", "",
    make("h2", "", make("code", `${method.toUpperCase()} ${path}`)),
    make("p", operation.description ?? operation.summary),
    make("pre", "", make("code", example(method, path, operation))),
    table("parameters", parameters), table("body", bodies), table("answers", answers), table("headers", headers));
}

fetch("/openapi.json").then((answer) => answer.json()).then((api) => {
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  const main = document.getElementById("operations");
  main.append(...api.info.description.split("\n\n").map((text) => make("p", text)));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) main.append(describe(method, path, operation));
  }
});
