// The table of subnets.
import { element, show, significant } from "./format.js";
import { figureOf, link, mark, shape } from "./look.js";
import { changed, pick } from "./main.js";
import { axes, isShown, isWithin, keyOf, points, state, valueOf } from "./view.js";

const { byId, known } = plotting;
// The column of the pictures comes after the names.
const layersAt = () => state.runs.length > 1 ? 2 : 1;

function columns() {
  const found = [{ id: "name", label: "Name", text: (point) => point.name }];
  if (state.runs.length > 1) found.push({ id: "run", label: "Run", text: (point) => point.label });
  for (const one of axes) {
    if (!points.some((point) => point.kind === "front" && point.values[one.id]) && !points.some((point) => point.kind === "spare")) continue;
    if (one.kind === "latency") {
      found.push({ id: one.id + ":predicted", label: one.label.replace(" (ms)", "") + ", predicted", number: (point) => point.values[one.id]?.[0], text: (point) => show(one, point.values[one.id]?.[0]) });
      found.push({ id: one.id, label: one.label.replace(" (ms)", "") + ", measured", number: (point) => point.values[one.id]?.[1], text: (point) => measured(point, one) });
    } else found.push({ id: one.id, label: one.label, number: (point) => valueOf(point, one.id), text: (point) => figureOf(point, one) });
  }
  return found;
}

function measured(point, one) {
  const four = point.values[one.id];
  if (!four || !known(four[1])) return "–";
  const half = known(four[2]) && known(four[3]) ? " ±" + significant((four[3] - four[2]) / 2, 2) : "";
  return (point.status === "ok" ? "" : "~") + significant(four[1]) + half + " ms";
}

export function drawTable(found) {
  const shown = columns(), rows = points.filter((point) => point.kind === "front" || (point.kind === "spare" && isShown(point)));
  const head = byId("head"), key = shown.map((one) => one.label).join("|");
  if (head.dataset.key !== key) {
    head.dataset.key = key;
    head.replaceChildren(element("tr", {}, ...shown.map((one) => {
      const button = element("button", { type: "button" }, one.label);
      button.addEventListener("click", () => {
        state.down = state.sort === one.id && !state.down;
        state.sort = one.id;
        changed();
      });
      const cell = element("th", { scope: "col", className: one.number ? "number" : "" }, button);
      cell.dataset.id = one.id;
      return cell;
    }), element("th", { scope: "col" }, "Files")));
    head.rows[0].cells[layersAt()].before(element("th", { scope: "col" }, "Layers"));
  }
  for (const cell of head.rows[0].cells) {
    if (cell.dataset.id === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
  const by = shown.find((one) => one.id === state.sort);
  if (by) rows.sort((a, b) => order(by, a, b));
  const body = byId("rows"), there = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  rows.forEach((point, place) => {
    const own = keyOf(point), content = JSON.stringify([point.values, point.files, point.status, point.heads, point.ffn, key]);
    let row = there.get(own);
    if (!row || row.content !== content) {
      const focused = row && row.contains(document.activeElement);
      const made = tableRow(point, shown, content);
      if (row) row.replaceWith(made);
      row = made;
      if (focused) row.querySelector("button").focus();
    }
    there.delete(own);
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
    row.className = (isWithin(point) ? "" : "out ") + (found.includes(point) ? "best" : "");
    row.setAttribute("aria-selected", String(own === state.pick));
    row.querySelector(".star").hidden = !found.includes(point);
  });
  there.forEach((row) => row.remove());
}

function order(by, a, b) {
  const turn = state.down ? -1 : 1;
  if (!by.number) return turn * by.text(a).localeCompare(by.text(b), undefined, { numeric: true });
  const left = by.number(a), right = by.number(b);
  if (!known(left) || !known(right)) return known(right) - known(left);
  return turn * (left - right);
}

function tableRow(point, shown, content) {
  const row = element("tr");
  row.dataset.key = keyOf(point);
  row.content = content;
  const name = element("button", { type: "button", className: "name" }, point.name);
  row.append(element("th", { scope: "row" }, ...(state.runs.length > 1 ? [mark(point.index)] : []), name, element("span", { className: "star", title: "best within the bounds" }, "★")));
  for (const one of shown.slice(1)) row.append(element("td", { className: one.number ? "number" : "" }, one.text(point)));
  row.append(element("td", { className: "files-cell" }, ...(point.files || []).filter((file) => /\/[^/]+\.(onnx|engine|pt2|json)$/.test(file) && file.includes("/" + point.name + "."))
    .map((file) => { const made = link(point, file); made.textContent = file.split(".").pop(); return made; })));
  row.cells[layersAt()].before(element("td", {}, ...(point.limits.layers ? [shape(point, 104, 30, false)] : [point.lines.join(", ")])));
  row.addEventListener("click", (event) => { if (event.target.tagName !== "A") pick(points.find((one) => keyOf(one) === row.dataset.key)); });
  name.addEventListener("keydown", (event) => {
    const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (next) { event.preventDefault(); next.querySelector("button").focus(); }
  });
  return row;
}
