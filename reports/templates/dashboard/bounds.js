// Bounds on every figure, and what is the best within them.
import { element, setText, show } from "./format.js";
import { changed, pick } from "./main.js";
import { axes, axisOf, isMeasured, isWithin, points, sign, state, valueOf } from "./view.js";

const { byId, known, wantsLog } = plotting;
const STEPS = 200;

export function drawBounds() {
  const place = byId("bounds"), there = new Map([...place.children].map((box) => [box.dataset.id, box]));
  let next = place.firstChild;
  for (const one of axes) {
    const values = points.filter((point) => point.kind !== "reference").map((point) => valueOf(point, one.id)).filter(known);
    if (!values.length) continue;
    let box = there.get(one.id);
    if (!box) box = newBound(one.id);
    there.delete(one.id);
    if (box === next) next = next.nextSibling;
    else place.insertBefore(box, next);  // moved only where it must be: moving takes the focus
    box.range = [Math.min(...values), Math.max(...values)];
    box.log = wantsLog(values);
    fillBound(box, one);
  }
  there.forEach((box) => box.remove());
}

function newBound(id) {
  const box = element("div", { className: "bound" });
  box.dataset.id = id;
  const slider = element("input", { type: "range", min: 0, max: STEPS, step: 1 });
  const text = element("input", { type: "text", inputMode: "decimal", autocomplete: "off", placeholder: "no bound", spellcheck: false });
  const note = element("span"), name = element("b");
  box.append(element("label", {}, name, note), element("div", { className: "line" }, slider, text));
  slider.addEventListener("input", () => {
    const one = axisOf(id), open = one.higher ? 0 : STEPS;
    if (Number(slider.value) === open) delete state.bounds[id];
    else state.bounds[id] = Number(atStep(box, Number(slider.value)).toPrecision(4));
    changed();
  });
  text.addEventListener("input", () => {
    const value = Number(text.value.trim().replace(",", "."));
    text.setAttribute("aria-invalid", String(text.value.trim() !== "" && !Number.isFinite(value)));
    if (text.value.trim() === "") delete state.bounds[id];
    else if (Number.isFinite(value)) state.bounds[id] = value;
    changed();
  });
  return box;
}

function atStep(box, step) {
  const [low, high] = box.range, part = step / STEPS;
  return box.log ? Math.exp(Math.log(low) + part * (Math.log(high) - Math.log(low))) : low + part * (high - low);
}

function stepOf(box, value) {
  const [low, high] = box.range;
  if (high <= low) return STEPS;
  const part = box.log ? (Math.log(Math.max(value, low)) - Math.log(low)) / (Math.log(high) - Math.log(low)) : (value - low) / (high - low);
  return Math.round(Math.min(Math.max(part, 0), 1) * STEPS);
}

function fillBound(box, one) {
  const bound = state.bounds[one.id], set = known(bound);
  const [label, line] = box.children, [slider, text] = line.children, [name, note] = label.children;
  box.classList.toggle("set", set);
  setText(name, one.label);
  setText(note, set ? (one.higher ? "≥ " : "≤ ") + show(one, bound) : show(one, box.range[0]) + " to " + show(one, box.range[1]));
  slider.value = set ? stepOf(box, bound) : one.higher ? 0 : STEPS;
  slider.setAttribute("aria-label", (one.higher ? "least " : "most ") + one.label);
  slider.setAttribute("aria-valuetext", set ? show(one, bound) : "no bound");
  text.setAttribute("aria-label", (one.higher ? "least " : "most ") + one.label + ", as a number");
  if (document.activeElement !== text) { text.value = set ? String(bound) : ""; text.setAttribute("aria-invalid", "false"); }
}

export function drawVerdict(found) {
  const place = byId("verdict");
  const bounds = Object.entries(state.bounds).filter(([id]) => axisOf(id));
  const words = bounds.map(([id, bound]) => `${axisOf(id).label} ${sign(axisOf(id)) === "<=" ? "≤" : "≥"} ${show(axisOf(id), bound)}`).join(", ");
  const candidates = points.filter((point) => point.kind === "front" || point.kind === "spare");
  const within = candidates.filter(isWithin).length;
  place.classList.toggle("none", candidates.length > 0 && !found.length);
  if (!candidates.length) return setText(place, "These runs have no subnet to choose from yet.");
  if (!found.length) return setText(place, `None of ${candidates.length} subnets is within ${words || "the bounds"}. Loosen a bound, or search with it in search.bounds.`);
  const same = new Set(found.map((point) => point.quality)).size === 1;
  const parts = [bounds.length ? `Best of ${within} within ${words}: ` : "Best quality of all: "];
  found.forEach((point, i) => {
    const one = axisOf(point.quality), x = axisOf(state.x);
    const name = element("button", { type: "button" }, point.name);
    name.addEventListener("click", () => pick(point));
    parts.push(i ? "; " : "", name, " of ", point.label, ` (${show(one, valueOf(point, one.id))}`,
      x.id === one.id ? ")" : `, ${isMeasured(point, x.id) ? "" : "~"}${show(x, valueOf(point, x.id))})`);
    if (point.kind === "spare") parts.push(", not exported yet");
  });
  if (found.length > 1 && !same) parts.push(". Qualities of different metrics are in no order.");
  const key = parts.map((part) => part.textContent ?? part).join("");
  if (place.dataset.key !== key || place.textContent !== key) { place.dataset.key = key; place.replaceChildren(...parts.filter((part) => part !== "")); }
}
