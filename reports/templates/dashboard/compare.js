// What is to be known of several runs together.
import { element } from "./format.js";
import { mark } from "./look.js";
import { ask } from "./server.js";
import { loaded, state } from "./view.js";

const { byId, known } = plotting;
let compareKey = "";

export async function drawCompare() {
  const ready = state.runs.filter((id) => loaded.get(id)?.data.points.some((point) => point.kind === "front"));
  const key = ready.map((id) => id + loaded.get(id).version).join("|");
  byId("compare").hidden = ready.length < 2;
  if (ready.length < 2 || key === compareKey) return;
  compareKey = key;
  const answer = await ask("/api/compare?" + ready.map((id) => "run=" + encodeURIComponent(id)).join("&"));
  if (key !== compareKey || !answer) return;
  const place = byId("compare-body");
  if (answer.error) return place.replaceChildren(element("p", { className: "missing" }, answer.error));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...["Run", "Subnets", "Hypervolume", "Leading"].map((text, i) => element("th", { scope: "col", className: i ? "number" : "" }, text)))),
    element("tbody", {}, ...answer.fronts.map((one) => element("tr", {}, element("th", { scope: "row" }, mark(state.runs.indexOf(one.id)), one.run), element("td", { className: "number" }, String(one.subnets)),
      element("td", { className: "number" }, known(one.hypervolume) ? one.hypervolume.toFixed(4) : "–"), element("td", { className: "number" }, known(one.leading) ? String(one.leading) : "–")))));
  const corner = answer.corner_text ? `Hypervolume is the share that a front dominates of the box between the best values of all fronts and the corner ${answer.corner_text}. Leading subnets are those that no subnet of any front dominates. ` : "";
  const shared = answer.architectures.length;
  place.replaceChildren(element("div", { className: "scroll" }, table), element("p", { className: "fine" }, corner + (shared ? `Architectures that two of the runs at least know: ${shared}; nas compare lists them.` : "")),
    ...answer.notes.map((note) => element("p", { className: "notice" }, note)));
}

export function drawNotices() {
  const lines = state.runs.flatMap((id) => {
    const data = loaded.get(id)?.data;
    return (data?.notices || []).map((text) => (state.runs.length > 1 ? data.label + ": " : "") + text.replace(" Drawn as open diamonds.", " Drawn open."));
  });
  const place = byId("notices");
  if (place.dataset.key !== lines.join("|")) {
    place.dataset.key = lines.join("|");
    const box = element("details", {}, element("summary", {}, `${lines.length} thing${lines.length > 1 ? "s" : ""} to mind`), ...lines.map((text) => element("p", { className: "notice" }, text)));
    place.replaceChildren(...(lines.length ? [box] : []));
  }
}
