// Numbers and times as a person reads them, and the elements that show them.
const { short, known } = plotting;

export function significant(value, digits) {
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

export function show(one, value) {
  if (!known(value)) return "–";
  if (one.fraction) return (100 * value).toFixed(2) + " %";
  if (one.kind === "quality" || one.kind === "test") return value.toFixed(3);
  if (one.kind === "latency") return significant(value) + " ms";
  if (one.bytes) return size(value);
  return /_mj$/.test(one.id) ? significant(value) + " mJ" : short(value);
}

export function duration(seconds) {
  if (seconds < 99.5) return Math.max(0, Math.round(seconds)) + " s";
  if (seconds < 99.5 * 60) return Math.round(seconds / 60) + " min";
  if (seconds < 72 * 3600) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}

export function element(tag, settings, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(settings || {}))
    if (key in made && key !== "role") made[key] = value; else made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

export function drawn(tag, settings, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(settings)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Replaced only where something is new: a focus, a selection or a scroll stays.
export function setText(place, text) { if (place.textContent !== text) place.textContent = text; }
