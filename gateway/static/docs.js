// Shows openapi.json without anything from elsewhere.

function el(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children.filter(Boolean));
  return node;
}

function resolved(schema, document) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? document.components.schemas[name] : schema;
}

function operation(method, path, described, api) {
  const body = described.requestBody && Object.values(described.requestBody.content)[0].schema;
  const parameters = (described.parameters || []).map((p) => `${p.name} (${p.in}${p.required ? ", required" : ""})`).join(", ");
  const variants = body && (body.anyOf || [body]).find((variant) => variant.type !== "null");
  return el("div", "card",
    el("h3", "", el("code", "", `${method.toUpperCase()} ${path}`)),
    el("p", "", described.description || described.summary || ""),
    parameters && el("p", "faint", `Parameters: ${parameters}`),
    variants && el("pre", "", JSON.stringify(resolved(variants, api), null, 2)));
}

const api = await (await fetch("/openapi.json")).json();
const cards = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, described]) => operation(method, path, described, api)));
document.getElementById("operations").replaceChildren(...cards);
