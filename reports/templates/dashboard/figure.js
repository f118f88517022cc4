// The front, drawn along any two axes.
import { figureOf, MARKS } from "./look.js";
import { pick } from "./main.js";
import { axes, axisOf, isMeasured, isShown, isWithin, keyOf, points, state, tone, valueOf } from "./view.js";

const { byId, colour, known, escaped, axis, layout, draw, logTicks, short, share } = plotting;

export function drawFigure(found) {
  const x = axisOf(state.x), y = axisOf(state.y);
  if (!x || !y) return;
  const at = (id) => (point) => valueOf(point, id);
  const placed = points.filter((point) => isShown(point) && known(valueOf(point, x.id)) && known(valueOf(point, y.id)));
  const traces = [];
  const dots = (chosen, name, marker, more) => {
    if (chosen.length)
      traces.push(Object.assign({ type: "scatter", mode: "markers", name: escaped(name), marker, hoverinfo: "text",
        x: chosen.map(at(x.id)), y: chosen.map(at(y.id)), text: chosen.map(hover), customdata: chosen.map(keyOf) }, more));
  };
  const within = new Set(placed.filter(isWithin));
  const best = new Set(found);
  const faint = placed.filter((point) => point.kind === "evaluated");
  dots(faint.filter((point) => !within.has(point)), "out of bounds", { size: 5, color: colour("grey"), opacity: 0.25 }, { showlegend: false });
  const several = state.runs.length > 1;
  state.runs.forEach((id, index) => {
    const own = placed.filter((point) => point.run === id);
    // Of several runs the legend has one entry each.
    const name = several && own.length ? own[0].label : "", quiet = several ? { showlegend: false } : {};
    const title = (text) => several ? name : text;
    const paint = colour(tone(index)), shape = MARKS[index % MARKS.length];
    dots(own.filter((point) => point.kind === "evaluated" && within.has(point)), title("evaluated, predicted"), { size: 5, color: several ? paint : colour("grey"), opacity: 0.45 }, quiet);
    dots(own.filter((point) => point.kind === "reference"), title("uniform subnets"), { size: 9, symbol: "cross-thin-open", color: several ? paint : colour("muted"), line: { width: 1.5 } }, quiet);
    const front = own.filter((point) => point.kind === "front");
    const links = { x: [], y: [] }, rings = { x: [], y: [] };
    for (const point of front) {
      const px = point.values[x.id][0] ?? point.values[x.id][1], py = point.values[y.id][0] ?? point.values[y.id][1];
      if (px === valueOf(point, x.id) && py === valueOf(point, y.id)) continue;
      links.x.push(px, valueOf(point, x.id), null); links.y.push(py, valueOf(point, y.id), null);
      rings.x.push(px); rings.y.push(py);
    }
    if (rings.x.length) {
      const shade = several ? paint : colour("predicted");
      traces.push({ type: "scatter", mode: "lines", x: links.x, y: links.y, hoverinfo: "skip", showlegend: false, line: { color: shade, width: 1 }, opacity: 0.6 });
      traces.push({ type: "scatter", mode: "markers", x: rings.x, y: rings.y, hoverinfo: "skip", name: "as predicted", showlegend: !several, marker: { size: 6, symbol: "circle-open", color: shade, line: { width: 1.2 } }, opacity: 0.7 });
    }
    const full = (point) => point.status === "ok" && isMeasured(point, x.id) && isMeasured(point, y.id);
    const group = (chosen, title, symbol, paintIt, more) => dots(chosen, title, { size: 9, symbol, color: paintIt, line: { width: symbol.endsWith("-open") ? 2 : 0 } },
      Object.assign({ error_x: bars(chosen, x, paintIt), error_y: bars(chosen, y, paintIt) }, more));
    const out = front.filter((point) => !within.has(point));
    group(out.filter(full), "out of bounds", shape, colour("grey"), { showlegend: false, opacity: 0.45 });
    group(out.filter((point) => !full(point)), "out of bounds", shape + "-open", colour("grey"), { showlegend: false, opacity: 0.55 });
    const inside = front.filter((point) => within.has(point));
    group(inside.filter(full), title("front, measured"), shape, paint);
    group(inside.filter((point) => !full(point)), title("front, not measured or not repeatable"), shape + "-open", paint, several && inside.some(full) ? quiet : {});
    dots(own.filter((point) => point.kind === "spare"), title("front, not exported (predicted)"),
      { size: 8, symbol: shape + "-open", color: own.filter((point) => point.kind === "spare").map((point) => within.has(point) ? paint : colour("grey")), line: { width: 1.5 }, opacity: 0.75 }, several && inside.length ? quiet : {});
  });
  const ring = (chosen, name, shade, wide, more) => {
    const there = chosen.filter((point) => known(valueOf(point, x.id)) && known(valueOf(point, y.id)));
    if (there.length)
      traces.push(Object.assign({ type: "scatter", mode: "markers+text", name, x: there.map(at(x.id)), y: there.map(at(y.id)), text: there.map((point) => "<b>" + escaped(point.name) + "</b>"),
        textposition: "top right", textfont: { size: 13, color: colour("ink") }, hoverinfo: "skip",
        marker: { size: wide, symbol: "circle-open", color: shade, line: { width: 2.5 } } }, more));
  };
  const picked = points.find((point) => keyOf(point) === state.pick);
  ring(found, "best within the bounds", colour("predicted"), 19);
  ring(picked && !best.has(picked) ? [picked] : [], "chosen", colour("ink"), 19);
  const values = (id) => placed.map(at(id)).filter(known);
  draw("figure", traces, layout({ xaxis: drawnAxis(x, "X", values(x.id)), yaxis: drawnAxis(y, "Y", values(y.id)), uirevision: [state.x, state.y, state.logX, state.logY].join() }), true);
  const figure = byId("figure");
  figure.setAttribute("aria-label", `Scatter plot of ${y.label} over ${x.label}: ${placed.length} subnets, ${within.size} of them within the bounds. The table below holds the same figures.`);
  if (!figure.heard) {
    figure.heard = true;
    figure.on("plotly_click", (event) => {
      const point = points.find((one) => keyOf(one) === event.points[0]?.customdata);
      if (point) pick(point);
    });
  }
}

function drawnAxis(one, which, values) {
  const log = byId("log-" + which.toLowerCase()).checked;
  const extra = one.fraction ? { tickformat: ".3~%" } : one.kind === "cost" ? { tickformat: ".3~s" } : {};
  return axis(one.label + (log ? ", logarithmic" : ""), log ? logTicks(values, one.fraction ? share : short) : extra);
}

function bars(chosen, one, paint) {
  const ends = chosen.map((point) => point.values[one.id] || []);
  if (!ends.some((four) => known(four[2]))) return { visible: false };
  const part = (index) => ends.map((four) => known(four[1]) && known(four[index]) ? Math.abs(four[index] - four[1]) : 0);
  return { type: "data", symmetric: false, array: part(3), arrayminus: part(2), thickness: 1.2, width: 3, color: paint };
}

function hover(point) {
  const lines = axes.filter((one) => point.values[one.id]).map((one) => `${one.label}: ${figureOf(point, one)}`);
  const what = { front: "", spare: " (not exported)", evaluated: " (evaluated)", reference: " (uniform)" }[point.kind];
  return `<b>${escaped(point.name + what)}</b><br>` + [...(state.runs.length > 1 ? [point.label] : []), ...lines, ...point.lines.slice(0, 3)].map(escaped).join("<br>");
}
