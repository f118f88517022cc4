// The list of runs.
import { duration, element, setText } from "./format.js";
import { mark } from "./look.js";
import { refresh } from "./main.js";
import { address, state } from "./view.js";

const { byId, known } = plotting;
const WORKING = ["training", "measuring", "searching", "exporting"];
export let listed = [];  // of /api/runs

export function setListed(found) { listed = found; }

export function drawRuns(folders) {
  const body = byId("runs"), rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  byId("runs-region").hidden = !listed.length;
  byId("no-runs").hidden = listed.length > 0;
  if (!listed.length) {
    byId("no-runs").replaceChildren("There is no run in ", element("code", {}, folders.join(", ")), " yet. One that ",
      element("code", {}, "nas run"), " starts there appears here by itself.");
  }
  const working = listed.filter((one) => WORKING.includes(one.stage)).length;
  setText(byId("runs-count"), listed.length ? listed.length + " in " + folders.join(", ") + (working ? ", " + working + " at work" : "") : "");
  listed.forEach((one, place) => {
    let row = rows.get(one.id);
    if (!row) row = newRow(one);
    rows.delete(one.id);
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
    fillRow(row, one);
  });
  rows.forEach((row) => row.remove());
}

function newRow(one) {
  const row = element("tr");
  row.dataset.id = one.id;
  const box = element("input", { type: "checkbox", ariaLabel: "Show " + one.run + " on " + one.device });
  box.addEventListener("change", () => {
    state.runs = box.checked ? [...state.runs, one.id] : state.runs.filter((id) => id !== one.id);
    state.runs = listed.map((each) => each.id).filter((id) => state.runs.includes(id));
    refresh();
  });
  row.append(element("td", {}, box), element("th", { scope: "row" }));
  for (let i = 0; i < 8; i++) row.append(element("td", { className: i > 2 && i < 6 ? "number" : i === 2 ? "how" : "" }));
  return row;
}

export function fillRow(row, one) {
  const [check, name, device, task, how, volume, front, evaluated, changed, report] = row.cells;
  const box = check.firstChild, at = state.runs.indexOf(one.id), damaged = one.stage === "damaged";
  box.checked = at >= 0;
  box.disabled = damaged;
  row.className = damaged ? "damaged" : at >= 0 ? "" : "off";
  if (name.dataset.at !== at + one.name) {
    name.dataset.at = at + one.name;
    name.replaceChildren(...(at >= 0 ? [mark(at)] : []), one.name, element("span", { className: "path" }, one.run));
  }
  setText(device, one.device + (one.mode === "quick" ? " (quick)" : ""));
  setText(task, [one.task, one.data].filter(Boolean).join(", "));
  const now = Date.now() / 1000;
  const left = one.ends_s ? (one.ends_s > now ? duration(one.ends_s - now) + " left" : "about to end") : "";
  const key = [one.stage, one.note, one.progress, left].join("|");
  if (how.dataset.key !== key) {
    how.dataset.key = key;
    how.replaceChildren(element("span", { className: "stage " + one.stage }, one.stage));
    if (WORKING.includes(one.stage)) {
      const bar = element("i");
      if (known(one.progress)) bar.style.width = 100 * one.progress + "%";
      how.append(element("span", { className: "track" + (known(one.progress) ? "" : " unknown") }, bar));
    }
    const percent = known(one.progress) ? Math.floor(100 * one.progress) + " %" : "";
    const words = [percent, one.note, left].filter(Boolean).join(", ");
    if (words) how.append(element("span", { className: "fine" }, words));
  }
  setText(volume, known(one.hypervolume) ? one.hypervolume.toFixed(4) : "–");
  setText(front, known(one.front) ? String(one.front) : "–");
  setText(evaluated, known(one.evaluated) ? String(one.evaluated) : "–");
  setText(changed, one.changed_s ? duration(now - one.changed_s) + " ago" : "–");
  if (one.has_report && !report.firstChild) report.append(element("a", { href: address("report", one.id), target: "_blank", rel: "noopener" }, "report"));
}
