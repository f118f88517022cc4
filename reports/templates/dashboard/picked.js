// One subnet: what it looks like, all its figures, its files and its command.
import { element, show, significant } from "./format.js";
import { figureOf, link, mark, shape } from "./look.js";
import { axes, keyOf, points, state } from "./view.js";

const { byId, known } = plotting;

export function drawPicked(found) {
  const place = byId("picked");
  const point = points.find((one) => keyOf(one) === state.pick) || found[0];
  const key = point ? keyOf(point) + JSON.stringify(point) + axes.length + found.includes(point) : "";
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  if (!point) return place.replaceChildren(element("p", { className: "fine" }, "No subnet is chosen."));
  const kinds = { front: "on the front, exported", spare: "on the front, not exported: figures are predictions", evaluated: "evaluated, dominated by others: figures are predictions", reference: "uniform subnet, for reference: figures are predictions" };
  const parts = [element("h3", {}, mark(point.index), point.name, found.includes(point) ? element("span", { className: "star", title: "best within the bounds" }, "★") : ""),
    element("p", { className: "fine" }, `${point.label}; ${kinds[point.kind]}`)];
  if (point.limits.layers) {
    parts.push(shape(point, 300, 96, true));
    parts.push(element("p", { className: "fine swatches" }, element("span", { className: "swatch heads" }), `heads, of ${point.limits.heads}`,
      element("span", { className: "swatch ffn" }), `FFN, of ${point.limits.ffn}`, element("span", { className: "swatch dropped" }), "dropped"));
  }
  if (point.policy) {
    const bits = (name, text) => [element("span", { className: "swatch " + name }), text];
    parts.push(element("p", { className: "fine swatches" }, "Weights of ", ...bits("bits32", "32"), ...bits("bits16", "16"), ...bits("bits8", "8"), ...bits("bits4", "4 bits"), ...bits("bits8 dotted", "inputs of 8 bits too")));
  }
  // Squares say what each layer's precision is; their lines would be long.
  const words = point.policy ? [...point.lines.slice(0, 3), point.ends || ""] : point.lines;
  parts.push(element("p", { className: "fine" }, [...words, ...(point.plans || [])].filter(Boolean).join("; ")));
  const facts = element("dl");
  for (const one of axes) {
    const four = point.values[one.id];
    if (!four) continue;
    const value = element("dd", {}, figureOf(point, one));
    if (one.kind === "latency" && known(four[1])) {
      const interval = known(four[2]) ? `, ${significant(four[2])} to ${significant(four[3])}` : "";
      value.append(element("small", {}, "measured" + interval), element("small", {}, "predicted " + show(one, four[0])));
    } else if (one.kind === "latency") value.append(element("small", {}, "predicted"));
    facts.append(element("dt", {}, one.label), value);
  }
  if (point.status && point.status !== "ok") facts.append(element("dt", {}, "measurement"), element("dd", { className: "bad" }, point.status));
  parts.push(facts);
  if (point.files?.length) {
    parts.push(element("h4", {}, "Download"), element("ul", { className: "files" }, ...point.files.map((file) => element("li", {}, link(point, file)))));
  }
  if (point.command) {
    const text = element("pre", { tabIndex: 0 }, point.command), copy = element("button", { type: "button", className: "plain" }, "Copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(point.command);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);  // where the browser allows no more
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    parts.push(element("h4", {}, "Write this subnet to a file"), text, copy);
  } else if (point.kind === "front") {
    parts.push(element("p", { className: "fine" }, "No bound of nas export --best gives this subnet: it is none of the search's front, or the search has gone on since."));
  } else {
    parts.push(element("p", { className: "fine" }, "nas export gives subnets of a finished search's front only."));
  }
  place.replaceChildren(...parts);
}
