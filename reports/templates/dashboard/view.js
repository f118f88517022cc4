// What is looked at: the runs that were chosen, the choices, and the address that holds them all.
import { TONES } from "./look.js";

const { known } = plotting;

export const loaded = new Map();  // by id: { version, data } of /api/runs/ID
export let points = [], axes = [];
export const state = { runs: [], x: "", y: "", logX: null, logY: null, bounds: {}, pick: "", evaluated: false, sort: "", down: false };

export const axisOf = (id) => axes.find((one) => one.id === id);
export const sign = (one) => one && one.higher ? ">=" : "<=";
export const valueOf = (point, id) => { const four = point.values[id]; return four ? four[1] ?? four[0] ?? null : null; };
export const isMeasured = (point, id) => { const four = point.values[id]; return Boolean(four && known(four[1])); };
export const keyOf = (point) => point.run + "/" + point.name;
export const address = (...parts) => "/" + parts.map(encodeURIComponent).join("/");
export const tone = (index) => TONES[index % TONES.length];

// The address holds all that was chosen, so that a view can be sent as a link.
export function readAddress() {
  const words = new URLSearchParams(location.search);
  state.runs = words.getAll("run");
  for (const key of ["x", "y", "pick", "sort"]) state[key] = words.get(key) || "";
  state.evaluated = words.get("evaluated") === "1";
  state.down = words.get("down") === "1";
  const log = (word) => words.has(word) ? words.get(word) === "1" : null;
  state.logX = log("logx");
  state.logY = log("logy");
  state.bounds = {};
  for (const text of words.getAll("bound")) {
    const match = /^(.+?)(<=|>=)(.+)$/.exec(text);
    if (match && Number.isFinite(Number(match[3]))) state.bounds[match[1]] = Number(match[3]);
  }
}

export function writeAddress() {
  const words = new URLSearchParams();
  state.runs.forEach((id) => words.append("run", id));
  for (const key of ["x", "y"]) if (state[key]) words.set(key, state[key]);
  if (state.logX !== null) words.set("logx", state.logX ? "1" : "0");
  if (state.logY !== null) words.set("logy", state.logY ? "1" : "0");
  for (const [id, value] of Object.entries(state.bounds)) words.append("bound", id + sign(axisOf(id)) + value);
  if (state.pick) words.set("pick", state.pick);
  if (state.evaluated) words.set("evaluated", "1");
  if (state.sort) words.set("sort", state.sort);
  if (state.down) words.set("down", "1");
  const text = words.toString();
  const address = location.pathname + (text ? "?" + text : "");
  if (address !== location.pathname + location.search) history.replaceState(null, "", address);
}

// Puts together what the chosen runs know; each figure is an axis once.
export function gather() {
  const found = new Map();
  points = [];
  state.runs.forEach((id, index) => {
    const data = loaded.get(id)?.data;
    if (!data) return;
    for (const one of data.axes) {
      const before = found.get(one.id);
      found.set(one.id, before ? Object.assign({}, one, before) : one);
    }
    for (const point of data.points)
      points.push(Object.assign(point, { run: id, index, label: data.label, limits: data.limits, quality: data.quality }));
  });
  axes = [...found.values()];
  if (!axes.length) return;  // what was chosen stays, for the runs to come back
  const ids = axes.map((one) => one.id);
  const first = (kind, other) => axes.find((one) => one.kind === kind && one.id !== other)?.id;
  if (!ids.includes(state.x)) state.x = first("latency") || ids[0] || "";
  if (!ids.includes(state.y)) state.y = first("quality") || ids.find((id) => id !== state.x) || state.x;
}

export const isShown = (point) => point.kind === "front" || point.kind === "reference" || state.evaluated ||
  keyOf(point) === state.pick || (point.kind === "spare" && isNoFront(point.run));
const isNoFront = (id) => !points.some((point) => point.run === id && point.kind === "front");

export function isWithin(point) {
  return Object.entries(state.bounds).every(([id, bound]) => {
    const one = axisOf(id), value = valueOf(point, id);
    if (!one) return true;
    return known(value) && (one.higher ? value >= bound : value <= bound);
  });
}

// As nas export --best chooses: of all that no other subnet dominates, exported or not.
export function bests() {
  const found = new Map();
  for (const point of points) {
    if (!(point.kind === "front" || point.kind === "spare") || !point.quality || !isWithin(point)) continue;
    const value = valueOf(point, point.quality), before = found.get(point.run);
    if (!known(value)) continue;
    // Of equal ones that with lower values of what is bounded, in the order of the bounds.
    const decide = [...Object.keys(state.bounds).filter((id) => axisOf(id) && !axisOf(id).higher), state.x];
    const rank = [value, ...decide.map((id) => valueOf(point, id) ?? 0)];
    const at = before ? rank.findIndex((one, i) => one !== before.rank[i]) : 0;
    if (!before || (at >= 0 && rank[at] < before.rank[at])) found.set(point.run, { point, rank });
  }
  return [...found.values()].sort((a, b) => a.rank[0] - b.rank[0]).map((one) => one.point);
}
