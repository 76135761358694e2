"use strict";
// Small helpers around the document. Text from the data enters the page as text nodes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

const readJson = (id) => JSON.parse(byId(id).textContent);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const element = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

const drawing = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

// A select with one option for each [value, text]; keeps the chosen value where it is still offered.
function fillSelect(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => String(value) === before)) select.value = before;
}

function fillList(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([label, text]) => [element("dt", {}, label), element("dd", {}, text)]));
}

// A table as Python made it; a cell is text, or text with a remark.
function tableOf({ title, note, columns, rows, headings }) {
  const heading = element("caption", {}, element("strong", {}, title), element("span", { class: "note" }, note));
  const align = (place) => (place < headings ? { class: "text" } : {});
  const head = element("tr", {}, ...columns.map((name, place) => element("th", { scope: "col", ...align(place) }, name)));
  const cellOf = (cell, place) => {
    if (place < headings) return element("th", { scope: "row", ...align(place) }, cell);
    return Array.isArray(cell) ? element("td", {}, cell[0], element("small", {}, cell[1])) : element("td", {}, cell);
  };
  const body = rows.map((row) => element("tr", {}, ...row.map(cellOf)));
  const table = element("table", {}, heading, element("thead", {}, head), element("tbody", {}, ...body));
  // Wide tables scroll by themselves; who has no mouse needs to be able to stop at them.
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
}

const percent = (share) => (share === null ? "–" : (100 * share).toFixed(1));
