"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("report-figures").textContent);
  const { byId, colour, narrow, known, axis, layout, draw, wantsLog, logTicks, short, share } = plotting;

  // --- the front -------------------------------------------------------------------------------
  const front = figures.front;
  const axisOf = (id) => front.axes.find((one) => one.id === id);

  function allValues(id) {
    return [].concat(front.dominated.values[id], front.spare.values[id], front.references.values[id],
      front.front.predicted[id], front.front.measured[id]);
  }

  function bars(id) {
    const at = front.front;
    if (!at.low[id].some(known)) return {};
    return {
      type: "data", symmetric: false, thickness: 1.5, width: 4, color: colour("measured"),
      array: at.measured[id].map((value, i) => known(value) && known(at.high[id][i]) ? at.high[id][i] - value : 0),
      arrayminus: at.measured[id].map((value, i) => known(value) && known(at.low[id][i]) ? value - at.low[id][i] : 0),
    };
  }

  function frontAxis(which) {
    const id = byId("front-" + which).value, one = axisOf(id);
    const format = one.fraction ? share : short;
    const extra = one.fraction ? { tickformat: ".3~%" } : one.kind === "cost" ? { tickformat: ".3~s" } : {};
    const log = byId("front-log-" + which).checked;
    return axis(one.label + (log ? ", logarithmic" : ""), log ? logTicks(allValues(id), format) : extra);
  }

  function drawFront() {
    const x = byId("front-x").value, y = byId("front-y").value, at = front.front;
    // Points without a place on one axis would still stretch the other.
    const placed = (group) => {
      const kept = group.text.map((_, i) => i).filter((i) => known(group.values[x][i]) && known(group.values[y][i]));
      const pick = (values) => kept.map((i) => values[i]);
      return { x: pick(group.values[x]), y: pick(group.values[y]), text: pick(group.text), name: pick(group.name) };
    };
    const dots = (group, name, marker) => ({
      type: "scatter", mode: "markers", name, marker, hoverinfo: "text", x: group.x, y: group.y, text: group.text,
    });
    const dominated = placed(front.dominated), spare = placed(front.spare), references = placed(front.references);
    byId("front-hint").hidden = dominated.text.length > 0 || !front.dominated.text.length;
    const traces = [];
    if (dominated.text.length)
      traces.push(dots(dominated, "dominated", { size: 5, color: colour("grey"), opacity: 0.5 }));
    if (spare.text.length)
      traces.push(dots(spare, "not dominated, not exported",
        { size: 6, symbol: "circle-open", color: colour("grey"), line: { width: 1.5 } }));
    const differ = at.name.some((_, i) => at.predicted[x][i] !== at.measured[x][i] || at.predicted[y][i] !== at.measured[y][i]);
    if (differ) {
      const links = { x: [], y: [] };
      at.name.forEach((_, i) => {
        links.x.push(at.predicted[x][i], at.measured[x][i], null);
        links.y.push(at.predicted[y][i], at.measured[y][i], null);
      });
      traces.push({ type: "scatter", mode: "lines", x: links.x, y: links.y, hoverinfo: "skip", showlegend: false,
        line: { color: colour("predicted"), width: 1 } });
      traces.push({ type: "scatter", mode: "markers", name: "front, predicted", x: at.predicted[x], y: at.predicted[y],
        text: at.text, hoverinfo: "text",
        marker: { size: 10, symbol: "circle-open", color: colour("predicted"), line: { width: 1.5 } } });
    }
    const only = (ok, values) => values.map((value, i) => at.ok[i] === ok ? value : null);
    const measured = (ok, name, marker) => {
      if (at.ok.includes(ok))
        traces.push({ type: "scatter", mode: "markers", name, x: only(ok, at.measured[x]), y: only(ok, at.measured[y]),
          text: at.text, hoverinfo: "text", error_x: bars(x), error_y: bars(y),
          marker: Object.assign({ color: colour("measured") }, marker) });
    };
    measured(true, differ ? "front, measured" : "front", { size: 8, line: { width: 0 } });
    measured(false, differ ? "front, not repeatable" : "front, latency not ok",
      { size: 9, symbol: "diamond-open", line: { width: 2 } });
    const marks = { largest: "triangle-up-open", smallest: "triangle-down-open" };
    if (references.text.length) {
      const trace = dots(references, "largest, smallest, uniform", {
        size: 11, symbol: references.name.map((name) => marks[name] || "square-open"),
        color: colour("ink"), line: { width: 1.5 } });
      trace.mode = "markers+text";
      trace.textposition = references.name.map((name) => name === "largest" ? "top left" : "top right");
      trace.texttemplate = references.name.map((name) => name in marks ? name : "");
      trace.hovertext = trace.text;
      trace.textfont = { size: 12, color: colour("muted") };
      traces.push(trace);
    }
    draw("front-figure", traces, layout({ xaxis: frontAxis("x"), yaxis: frontAxis("y") }), true);
  }

  function setUpFront() {
    if (!front || !byId("front-controls")) return;
    for (const which of ["x", "y"]) {
      const select = byId("front-" + which), box = byId("front-log-" + which);
      for (const one of front.axes) select.add(new Option(one.label, one.id, false, one.id === front[which]));
      const suggest = () => {
        const values = allValues(select.value).filter(known);
        box.disabled = values.some((value) => value <= 0);
        box.checked = wantsLog(values);
      };
      suggest();
      select.addEventListener("change", () => { suggest(); drawFront(); });
      box.addEventListener("change", drawFront);
    }
    byId("front-controls").hidden = false;
    byId("front-controls").addEventListener("submit", (event) => event.preventDefault());
  }

  // --- predicted and measured --------------------------------------------------------------------
  function drawLatency() {
    const all = figures.latency;
    if (!all.length) return;
    const workloads = [...new Set(all.map((one) => one.workload))];
    const colours = [colour("measured"), colour("predicted"), colour("third"), colour("ink")];
    const values = [].concat(...all.map((one) => one.predicted.concat(one.measured)));
    const low = Math.min(...values) / 1.1, high = Math.max(...values) * 1.1;
    const name = (one) => (workloads.length > 1 ? one.workload + ", " : "") + (one.origin === "front" ? "front" : "correction");
    const trace = (one, y, up, down) => ({
      type: "scatter", mode: "markers", name: name(one), x: one.predicted, y, text: one.text, hoverinfo: "text",
      error_y: { type: "data", symmetric: false, array: up, arrayminus: down, thickness: 1, width: 3,
        color: colours[workloads.indexOf(one.workload) % colours.length] },
      marker: { size: 8, color: colours[workloads.indexOf(one.workload) % colours.length],
        line: { width: one.origin === "front" ? 0 : 1.5 }, symbol: one.origin === "front" ? "circle" : "square-open" },
    });
    const ends = (one, key) => one[key].map((value, i) => known(value) ? value : one.measured[i]);
    const line = (x, y) => ({ type: "scatter", mode: "lines", x, y, hoverinfo: "skip", showlegend: false,
      line: { color: colour("grey"), width: 1, dash: "dash" } });
    const ticks = high / low > 4 ? logTicks(values, short) : {};
    const plain = all.map((one) => trace(one, one.measured,
      ends(one, "high").map((value, i) => value - one.measured[i]), ends(one, "low").map((value, i) => one.measured[i] - value)));
    draw("latency-figure", [line([low, high], [low, high])].concat(plain), layout({
      xaxis: axis("predicted (ms)", Object.assign({}, ticks)), yaxis: axis("measured (ms)", Object.assign({}, ticks)) }));
    const residual = all.map((one) => trace(one, one.measured.map((value, i) => value / one.predicted[i] - 1),
      ends(one, "high").map((value, i) => (value - one.measured[i]) / one.predicted[i]),
      ends(one, "low").map((value, i) => (one.measured[i] - value) / one.predicted[i])));
    draw("residual-figure", [line([low, high], [0, 0])].concat(residual), layout({
      xaxis: axis("predicted (ms)", Object.assign({}, ticks)),
      yaxis: axis("measured against predicted", { tickformat: "+.3~%" }) }));
  }

  // --- training ----------------------------------------------------------------------------------
  function drawTraining() {
    const at = figures.training;
    if (!at) return;
    const curve = (key, name, tone, dash) => ({ type: "scatter", mode: "lines", name, x: at.step, y: at[key],
      line: { color: colour(tone), width: 1.75, dash }, hovertemplate: "step %{x}: %{y:.3f}" });
    const values = at.largest.concat(at.smallest, at.random);
    draw("training-figure", [curve("largest", "largest (labels)", "measured", "solid"),
      curve("random", `random (${at.students})`, "third", "dot"), curve("smallest", `smallest (${at.students})`, "predicted", "dash"),
    ].filter((one) => one.y.some(known)), layout({ hovermode: "x unified",
      xaxis: axis("step"), yaxis: axis("loss (nats)", wantsLog(values) ? logTicks(values, short) : {}) }));
  }

  // --- tables ------------------------------------------------------------------------------------
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        const sign = down ? -1 : 1, numeric = head.classList.contains("number");
        const key = (row) => numeric ? row.cells[column].dataset.sort : row.cells[column].textContent;
        const rows = [...body.rows].sort((a, b) => {
          const left = key(a), right = key(b);
          if (left === "" || right === "") return (left === "") - (right === "");
          return sign * (numeric ? left - right : left.localeCompare(right, undefined, { numeric: true }));
        });
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...rows);
      });
    });
  }

  function drawAll() {
    if (front && byId("front-figure")) drawFront();
    drawLatency();
    drawTraining();
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  setUpFront();
  drawAll();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let wasNarrow = narrow();
  window.addEventListener("resize", () => { if (narrow() !== wasNarrow) { wasNarrow = narrow(); drawAll(); } });
})();
