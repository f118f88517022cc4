// Puts it all together, and keeps it fresh.
import { drawBounds, drawVerdict } from "./bounds.js";
import { drawCompare, drawNotices } from "./compare.js";
import { drawFigure } from "./figure.js";
import { setText } from "./format.js";
import { drawPicked } from "./picked.js";
import { drawRuns, fillRow, listed, setListed } from "./runs.js";
import { ask } from "./server.js";
import { drawTable } from "./table.js";
import { address, axes, bests, gather, isShown, keyOf, loaded, points, readAddress, state, valueOf, writeAddress } from "./view.js";

const { byId, known, wantsLog } = plotting;
const POLL_MS = 2000, HIDDEN_MS = 15000;
let listText = "", hasChosen = false;

export function changed() {
  const some = axes.length > 0;
  byId("chooser").hidden = !state.runs.length;
  if (some) {
    for (const which of ["x", "y"]) {
      const select = byId(which), ids = axes.map((one) => one.id).join("|");
      if (select.dataset.ids !== ids) {
        select.dataset.ids = ids;
        select.replaceChildren(...axes.map((one) => new Option(one.label, one.id)));
      }
      select.value = state[which];
      const values = points.filter(isShown).map((point) => valueOf(point, state[which])).filter(known);
      const box = byId("log-" + which), chosen = which === "x" ? state.logX : state.logY;
      box.disabled = values.some((value) => value <= 0);
      box.checked = !box.disabled && (chosen === null ? wantsLog(values) : chosen);
    }
    byId("evaluated").checked = state.evaluated;
  }
  const found = bests();
  drawBounds();
  drawVerdict(found);
  drawFigure(found);
  drawPicked(found);
  if (some) drawTable(found); else byId("rows").replaceChildren();
  drawNotices();
  writeAddress();
}

export function pick(point) {
  state.pick = keyOf(point);
  changed();
}

export async function refresh() {
  // What is gone or damaged is not shown on as if it were there.
  for (const id of loaded.keys()) if (!listed.some((one) => one.id === id && one.stage !== "damaged")) loaded.delete(id);
  listed.forEach((one) => { const row = [...byId("runs").rows].find((each) => each.dataset.id === one.id); if (row) fillRow(row, one); });
  const wanted = state.runs.map((id) => listed.find((one) => one.id === id)).filter(Boolean);
  await Promise.all(wanted.map(async (one) => {
    if (!isStale(one)) return;
    const data = await ask(address("api", "runs", one.id));
    if (data && !data.error) loaded.set(one.id, { version: one.version, data });
  }));
  gather();
  changed();
  await drawCompare();
}

// Whether a chosen run has to be asked for, also after an answer that never came.
const isStale = (one) => state.runs.includes(one.id) && one.stage !== "damaged" && loaded.get(one.id)?.version !== one.version;

async function poll() {
  const answer = await ask("/api/runs");
  const live = byId("live");
  if (!answer || answer.error) {
    live.className = "badge";
    setText(live, answer?.error || "nas dashboard does not answer; what is shown may be old");
  } else {
    live.className = "badge calm live";
    setText(live, "live");
    const text = JSON.stringify(answer);
    const isNew = text !== listText || answer.runs.some((one) => isStale(one));
    setListed(answer.runs);
    listText = text;
    if (!state.runs.length && !hasChosen) {  // a front to begin with, the newest
      const whole = listed.filter((one) => one.stage !== "damaged");
      whole.sort((a, b) => (b.front > 0) - (a.front > 0) || b.changed_s - a.changed_s);
      state.runs = whole.slice(0, 1).map((one) => one.id);
    }
    if (state.runs.length) hasChosen = true;
    drawRuns(answer.folders);
    if (isNew) await refresh();
  }
  setTimeout(poll, document.hidden ? HIDDEN_MS : POLL_MS);
}

for (const which of ["x", "y"]) {
  byId(which).addEventListener("change", () => { state[which] = byId(which).value; state["log" + which.toUpperCase()] = null; changed(); });
  byId("log-" + which).addEventListener("change", () => { state["log" + which.toUpperCase()] = byId("log-" + which).checked; changed(); });
}
byId("evaluated").addEventListener("change", () => { state.evaluated = byId("evaluated").checked; changed(); });
byId("controls").addEventListener("submit", (event) => event.preventDefault());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => changed());
window.addEventListener("popstate", () => { readAddress(); refresh(); });
readAddress();
poll();
