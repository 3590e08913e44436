"use strict";
// What all parts of the page use. Whatever comes from the data goes into the page as text, never
// as markup: `make` sets textContent and attributes only.

const data = JSON.parse(document.getElementById("data").textContent);
const state = { shown: data.runs.map(() => true), axis: "log" };
const listeners = [];

/** Call `listener` whenever runs are shown or hidden or the axis changes. */
function onChange(listener) {
  listeners.push(listener);
}

function changed() {
  for (const listener of listeners) listener();
}

/** An element with attributes (a function is a listener) and children, texts or elements. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "path"].includes(tag);
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

function section(id) {
  return document.getElementById(id);
}

/** A number as a person reads it: counts in full, others with `digits` that mean something. */
function number(value, digits = 5) {
  if (value === null || value === undefined) return "\u2013";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return whole(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) {
    return value.toExponential(digits - 1).replace("-", "\u2212").replace("e+", "e").replace("e-", "e\u2212");
  }
  const shown = Number(value.toPrecision(digits));
  return shown.toLocaleString("en-US", { maximumFractionDigits: 8 }).replace("-", "\u2212");
}

function whole(value) {
  return value.toLocaleString("en-US").replace("-", "\u2212");
}

function seconds(value) {
  if (value === null || value === undefined) return "\u2013";
  if (value >= 5400) return `${number(value / 3600, 3)} h`;
  if (value >= 90) return `${number(value / 60, 3)} min`;
  return `${number(value, 3)} s`;
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value, 3)} ${units[unit]}`;
}

function plural(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** Steps in words, ranges of neighbours in `all` put together: "0, 1, 8 to 512". */
function inWords(steps, all) {
  const parts = [];
  for (let i = 0; i < steps.length; ) {
    let end = i;
    while (end + 1 < steps.length && all.indexOf(steps[end + 1]) === all.indexOf(steps[end]) + 1) end += 1;
    if (end - i > 1) parts.push(`${whole(steps[i])} to ${whole(steps[end])}`);
    else for (let j = i; j <= end; j += 1) parts.push(whole(steps[j]));
    i = end + 1;
  }
  return parts.length > 12 ? `${parts.slice(0, 12).join(", ")}, \u2026` : parts.join(", ");
}

const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffc\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;

/** A text whose control characters, line ends and marks of direction can be seen. */
function visible(text) {
  return text.replace(INVISIBLE, (letter) => {
    if (letter === "\n") return "\u21b5";
    if (letter === "\t") return "\u21e5";
    const code = letter.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

const LEGEND_LETTERS = 40;

/** A run's name where there is little room for it. */
function short(label) {
  return label.length > LEGEND_LETTERS ? `${label.slice(0, LEGEND_LETTERS - 1)}\u2026` : label;
}

/** For Plotly, which takes some tags in texts for markup. */
function forPlotly(text) {
  return visible(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

const KINDS = {
  "<f4": Float32Array, "|i1": Int8Array, "<i4": Int32Array, "<u2": Uint16Array,
};

/** Numbers as packed.py packs them. */
function unpacked(array) {
  const text = atob(array.data);
  const raw = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) raw[i] = text.charCodeAt(i);
  return new KINDS[array.dtype](raw.buffer);
}

function isDark() {
  return matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches && !printing;
}

let printing = false;

function colour(index) {
  const chosen = data.palette[index % data.palette.length];
  return chosen === "#000000" && isDark() ? "#f2f1ec" : chosen;
}

/** Colours as on white paper while `action` looks at a chart, whatever the theme; a promise. */
async function onPaper(plot, action) {
  printing = true;
  changed();
  try {
    return await action(plot);
  } finally {
    printing = false;
    changed();
  }
}

const DASHES = ["solid", "dash", "dashdot", "dot", "longdash"];
const DASH_ARRAYS = ["", "6 3", "6 2 2 2", "2 2", "10 3"];
/** The markers as paths around 0, 0. */
const MARKER_PATHS = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-4-4h8v8h-8z", "M-5 4h10l-5-9z", "M0-5l5 5l-5 5l-5-5z",
  "M-5-4h10l-5 9z", "M-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z", "M-4-2l2-2l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2z",
];
const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];

/** The layout that all charts have in common. */
function layout(title, extra = {}) {
  const css = getComputedStyle(document.documentElement);
  const text = printing ? "#000000" : css.getPropertyValue("--text").trim();
  const grid = printing ? "#dddddd" : css.getPropertyValue("--grid").trim();
  const line = printing ? "#999999" : css.getPropertyValue("--line").trim();
  const quiet = css.getPropertyValue("--quiet").trim();
  const paper = printing ? "#ffffff" : "rgba(0,0,0,0)";
  const axis = { gridcolor: grid, linecolor: line, zeroline: false, ticks: "outside", tickcolor: line, showline: true, automargin: true };
  const { xaxis, yaxis, ...rest } = extra;
  return {
    paper_bgcolor: paper,
    plot_bgcolor: paper,
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: text },
    margin: { l: 56, r: 14, t: 8, b: 44 },
    hoverlabel: { font: { size: 13 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: quiet, activecolor: text },
    showlegend: false,
    xaxis: { ...axis, ...xaxis },
    yaxis: { ...axis, title: { text: title, standoff: 6 }, ...yaxis },
    ...rest,
  };
}

const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [[ // all others are left out
    {
      name: "save", title: "Save as SVG", icon: Plotly.Icons.camera,
      click: (plot) => onPaper(plot, () => Plotly.downloadImage(plot, { format: "svg", filename: "chart" })),
    },
    "zoom2d", "pan2d", "resetScale2d",
  ]],
};

const MOST_IN_LEGEND = 3; // more would leave no room for the chart; the controls show each run's line

/** The legend of a chart of runs, of which the controls say as much. */
function legendOf(runs) {
  return { showlegend: runs > 1 && runs <= MOST_IN_LEGEND, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 } };
}

/** Where a step stands on the axis: log10(1 + step) leaves room for step 0. */
function place(step) {
  return state.axis === "log" ? Math.log10(1 + step) : step;
}

function stepAxis(steps) {
  const last = Math.max(1, ...steps);
  const title = { text: "training step", standoff: 6 };
  if (state.axis !== "log") return { title, separatethousands: true, rangemode: "tozero" };
  const tickvals = [0];
  const ticktext = ["0"];
  for (let power = 1; power <= last * 1.0001; power *= 10) {
    for (let digit = 1; digit < 10 && digit * power <= last; digit += 1) {
      tickvals.push(Math.log10(1 + digit * power));
      ticktext.push(digit === 1 ? whole(power) : "");
    }
  }
  return { title, tickvals, ticktext, range: [-0.06, Math.log10(1 + last) + 0.06] };
}
