"use strict";
(function () {
  const { byId, colour, known, escaped, axis, layout, draw, wantsLog, logTicks, short, share } = plotting;
  const POLL_MS = 2000, HIDDEN_MS = 15000, STEPS = 200;
  const WORKING = ["training", "measuring", "searching", "exporting"];
  const TONES = ["measured", "predicted", "third", "ink"];
  const MARKS = ["circle", "square", "triangle-up", "diamond", "triangle-down"];
  const MARK_PATHS = ["M1 6a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "M2 2h8v8h-8z", "M6 1l5.5 10h-11z", "M6 0l6 6-6 6-6-6z", "M6 11L.5 1h11z"];

  let listed = [];                // of /api/runs
  let listText = "";
  const loaded = new Map();       // by id: { version, data } of /api/runs/ID
  let compareKey = "", points = [], axes = [];
  const state = { runs: [], x: "", y: "", logX: null, logY: null, bounds: {}, pick: "", evaluated: false, sort: "", down: false };

  // --- the address, which holds all that was chosen ------------------------------------------------
  function readAddress() {
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

  function writeAddress() {
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

  // --- small things --------------------------------------------------------------------------------
  function element(tag, settings, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(settings || {}))
      if (key in made && key !== "role") made[key] = value; else made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  function drawn(tag, settings, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(settings)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // Replaced only where something is new: a focus, a selection or a scroll stays.
  function setText(place, text) { if (place.textContent !== text) place.textContent = text; }

  const axisOf = (id) => axes.find((one) => one.id === id);
  const sign = (one) => one && one.higher ? ">=" : "<=";
  const valueOf = (point, id) => { const four = point.values[id]; return four ? four[1] ?? four[0] ?? null : null; };
  const isMeasured = (point, id) => { const four = point.values[id]; return Boolean(four && known(four[1])); };
  const keyOf = (point) => point.run + "/" + point.name;
  const address = (...parts) => "/" + parts.map(encodeURIComponent).join("/");
  const tone = (index) => TONES[index % TONES.length];

  function significant(value, digits) {
    if (!known(value)) return "–";
    if (value === 0) return "0";
    const places = (digits || 3) - 1 - Math.floor(Math.log10(Math.abs(value)));
    return value.toFixed(Math.min(Math.max(places, 0), 9));
  }

  function size(value) {
    const units = [" B", " KiB", " MiB", " GiB"];
    let unit = 0;
    while (value >= 1024 && unit < 3) { value /= 1024; unit++; }
    return (unit ? significant(value) : value.toFixed(0)) + units[unit];
  }

  function show(one, value) {
    if (!known(value)) return "–";
    if (one.fraction) return (100 * value).toFixed(2) + " %";
    if (one.kind === "quality" || one.kind === "test") return value.toFixed(3);
    if (one.kind === "latency") return significant(value) + " ms";
    if (one.bytes) return size(value);
    return /_mj$/.test(one.id) ? significant(value) + " mJ" : short(value);
  }

  function duration(seconds) {
    if (seconds < 99.5) return Math.max(0, Math.round(seconds)) + " s";
    if (seconds < 99.5 * 60) return Math.round(seconds / 60) + " min";
    if (seconds < 72 * 3600) return Math.round(seconds / 3600) + " h";
    return Math.round(seconds / 86400) + " days";
  }

  // --- the list of runs ----------------------------------------------------------------------------
  function drawRuns(folders) {
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

  function fillRow(row, one) {
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

  function mark(index) {
    return drawn("svg", { class: "mark run" + (index % TONES.length), viewBox: "0 0 12 12", "aria-hidden": "true" },
      drawn("path", { d: MARK_PATHS[index % MARK_PATHS.length] }));
  }

  // --- what the chosen runs know --------------------------------------------------------------------
  function gather() {
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
    const ids = axes.map((one) => one.id);
    const first = (kind, other) => axes.find((one) => one.kind === kind && one.id !== other)?.id;
    if (!ids.includes(state.x)) state.x = first("latency") || ids[0] || "";
    if (!ids.includes(state.y)) state.y = first("quality") || ids.find((id) => id !== state.x) || state.x;
  }

  const isShown = (point) => point.kind === "front" || point.kind === "reference" || state.evaluated ||
    keyOf(point) === state.pick || (point.kind === "spare" && isNoFront(point.run));
  const isNoFront = (id) => !points.some((point) => point.run === id && point.kind === "front");

  function isWithin(point) {
    return Object.entries(state.bounds).every(([id, bound]) => {
      const one = axisOf(id), value = valueOf(point, id);
      if (!one) return true;
      return known(value) && (one.higher ? value >= bound : value <= bound);
    });
  }

  // As nas export --best chooses: of all that no other subnet dominates, exported or not.
  function bests() {
    const found = new Map();
    for (const point of points) {
      if (!(point.kind === "front" || point.kind === "spare") || !point.quality || !isWithin(point)) continue;
      const value = valueOf(point, point.quality), before = found.get(point.run);
      if (!known(value)) continue;
      const rank = [value, valueOf(point, state.x) ?? 0];
      if (!before || rank[0] < before.rank[0] || (rank[0] === before.rank[0] && rank[1] < before.rank[1])) found.set(point.run, { point, rank });
    }
    return [...found.values()].sort((a, b) => a.rank[0] - b.rank[0]).map((one) => one.point);
  }

  // --- bounds ----------------------------------------------------------------------------------------
  function drawBounds() {
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

  // --- the verdict -------------------------------------------------------------------------------------
  function drawVerdict(found) {
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

  // --- the figure --------------------------------------------------------------------------------------
  function drawFigure(found) {
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

  function figureOf(point, one) {
    const four = point.values[one.id];
    if (!four) return "–";
    const value = valueOf(point, one.id);
    const doubt = !known(four[1]) || (one.kind === "latency" && point.status && point.status !== "ok");
    let text = (doubt ? "~" : "") + show(one, value);
    if (one.kind === "test" && known(four[3])) text = show(one, value).replace(" %", "") + " ± " + show(one, four[3] - value);
    return text;
  }

  // --- what one subnet looks like ------------------------------------------------------------------------
  function shape(point, wide, high, withPolicy) {
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

  function drawPicked(found) {
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

  function link(point, file) {
    return element("a", { href: address("files", point.run, ...file.split("/")), download: file.split("/").pop() }, file.split("/").pop());
  }

  function pick(point) {
    state.pick = keyOf(point);
    changed();
  }

  // The column of the pictures comes after the names.
  const layersAt = () => state.runs.length > 1 ? 2 : 1;

  // --- the table -------------------------------------------------------------------------------------------
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

  function drawTable(found) {
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

  // --- several runs -----------------------------------------------------------------------------------------
  async function drawCompare() {
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

  // --- all of it ----------------------------------------------------------------------------------------------
  function changed() {
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

  function drawNotices() {
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

  async function ask(path) {
    try {
      const answer = await fetch(path, { cache: "no-cache" });  // asks by ETag, and reads again what is new only
      return await answer.json();
    } catch {
      return null;
    }
  }

  async function refresh() {
    listed.forEach((one) => { const row = [...byId("runs").rows].find((each) => each.dataset.id === one.id); if (row) fillRow(row, one); });
    const wanted = state.runs.map((id) => listed.find((one) => one.id === id)).filter(Boolean);
    await Promise.all(wanted.map(async (one) => {
      if (loaded.get(one.id)?.version === one.version) return;
      const data = await ask(address("api", "runs", one.id));
      if (data && !data.error) loaded.set(one.id, { version: one.version, data });
    }));
    gather();
    changed();
    await drawCompare();
  }

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
      const isNew = text !== listText;
      listed = answer.runs;
      listText = text;
      const shown = state.runs.some((id) => listed.some((one) => one.id === id));
      if (!shown) {
        const newest = listed.filter((one) => one.stage !== "damaged").sort((a, b) => (b.front > 0) - (a.front > 0) || b.changed_s - a.changed_s)[0];
        if (newest && !state.runs.length) state.runs = [newest.id];
      }
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
})();
