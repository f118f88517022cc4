"use strict";
// What every interactive plot of elastic-nas has in common: colours, axes, ticks, numbers.
const plotting = (function () {
  const byId = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const narrow = () => window.innerWidth < 640;
  const known = (value) => value !== null && value !== undefined;
  // Buttons are named one by one: Plotly's own set may come with one that sends the figure to a server.
  const config = { displaylogo: false, responsive: true,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  // Plotly reads a few HTML tags in its labels; names from a user's files are to be shown as they are.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function axis(title, extra) {
    return Object.assign({
      title: { text: escaped(title), standoff: 10, font: { size: 13 } }, gridcolor: colour("grid"), linecolor: colour("rule"),
      zeroline: false, automargin: true, ticks: "outside", tickcolor: colour("rule"), ticklen: 4,
    }, extra);
  }

  function layout(extra) {
    const touch = window.matchMedia("(pointer: coarse)").matches;
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
      margin: { l: 12, r: 12, t: 44, b: 12 },
      hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("rule"), align: "left",
        font: { color: colour("ink"), size: 12, family: getComputedStyle(document.body).fontFamily } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("grey"), activecolor: colour("ink") },
      hovermode: "closest", dragmode: touch ? false : "zoom",
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    }, extra);
  }

  function draw(id, traces, how, modeBar) {
    const place = byId(id);
    if (place) Plotly.react(place, traces, how, Object.assign({}, config, { displayModeBar: modeBar && !narrow() ? "hover" : false }));
  }

  // A range that spans much is read better by its logarithm, where the values allow it.
  function wantsLog(values) {
    const found = values.filter(known);
    return found.length > 1 && Math.min(...found) > 0 && Math.max(...found) / Math.min(...found) > 8;
  }

  function logTicks(values, how) {
    const found = values.filter((value) => known(value) && value > 0);
    if (!found.length) return {};
    const low = Math.min(...found) / 1.3, high = Math.max(...found) * 1.3;
    const steps = high / low > 200 ? [1] : [1, 2, 5];
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const step of steps) {
        const value = step * Math.pow(10, power);
        if (value >= low && value <= high) ticks.push(Number(value.toPrecision(1)));
      }
    return { type: "log", tickvals: ticks, ticktext: ticks.map(how) };
  }

  const short = (value) => {
    for (const [unit, name] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
      if (value >= unit) return Number((value / unit).toPrecision(3)) + name;
    return String(Number(value.toPrecision(3)));
  };
  const share = (value) => Number((100 * value).toPrecision(3)) + " %";

  return { byId, colour, narrow, known, escaped, axis, layout, draw, wantsLog, logTicks, short, share };
})();
