// What a run and a subnet look like, wherever they are drawn.
import { drawn, element, show } from "./format.js";
import { address, valueOf } from "./view.js";

const { known } = plotting;

export const TONES = ["measured", "predicted", "third", "ink"];
export const MARKS = ["circle", "square", "triangle-up", "diamond", "triangle-down"];
const MARK_PATHS = ["M1 6a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "M2 2h8v8h-8z", "M6 1l5.5 10h-11z", "M6 0l6 6-6 6-6-6z", "M6 11L.5 1h11z"];

export function mark(index) {
  return drawn("svg", { class: "mark run" + (index % TONES.length), viewBox: "0 0 12 12", "aria-hidden": "true" },
    drawn("path", { d: MARK_PATHS[index % MARK_PATHS.length] }));
}

export function shape(point, wide, high, withPolicy) {
  const most = point.limits, layers = point.heads.length, half = high / 2;
  const bottom = withPolicy && point.policy ? 44 : 0;
  const picture = drawn("svg", { class: "shape", viewBox: `0 0 ${wide} ${high + bottom}`, role: "img", "aria-label": point.lines.join("; ") });
  const step = wide / layers;
  for (let i = 0; i < layers; i++) {
    const left = i * step + step * 0.12, width = step * 0.76, heads = point.heads[i], ffn = point.ffn[i];
    const kept = heads > 0 || ffn > 0;
    const group = drawn("g", {}, drawn("title", {}, `layer ${i}: ${kept ? heads + " heads, FFN " + ffn : "dropped"}`));
    const box = (name, y, height, inset) => group.append(drawn("rect", { class: name, x: left + (inset || 0), y, width: width - 2 * (inset || 0), height }));
    if (kept) {
      const up = (half - 2) * heads / (most.heads || 1), down = (half - 2) * ffn / (most.ffn || 1);
      box("ghost", 1, high - 2);
      box("heads", half - 1 - up, up);
      box("ffn", half + 1, down);
    } else box("dropped", 1.5, high - 3, 0.5);
    picture.append(group);
  }
  for (const square of bottom ? point.policy : []) {
    const left = square.layer * step + step * 0.12, width = step * 0.76, y = high + 4 + square.row * 9.5;
    const group = drawn("g", {}, drawn("title", {}, square.text), drawn("rect", { class: "bits" + square.bits, x: left, y, width, height: 8 }));
    if (square.integer_inputs) group.append(drawn("circle", { class: "inputs", cx: left + width / 2, cy: y + 4, r: 1.8 }));
    picture.append(group);
  }
  return picture;
}

export function figureOf(point, one) {
  const four = point.values[one.id];
  if (!four) return "–";
  const value = valueOf(point, one.id);
  const doubt = !known(four[1]) || (one.kind === "latency" && point.status && point.status !== "ok");
  let text = (doubt ? "~" : "") + show(one, value);
  if (one.kind === "test" && known(four[3])) text = show(one, value).replace(" %", "") + " ± " + show(one, four[3] - value);
  return text;
}

export function link(point, file) {
  return element("a", { href: address("files", point.run, ...file.split("/")), download: file.split("/").pop() }, file.split("/").pop());
}
