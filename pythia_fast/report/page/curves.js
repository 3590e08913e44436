// Learning curves: one chart for each metric, one line for each run, gaps left open and marked.

const columnAt = Object.fromEntries(data.table.columns.map((name, c) => [name, c]));

/** The rows of the table by run and metric. */
const rowsOf = (() => {
  const found = new Map();
  for (const row of data.table.rows) {
    const key = JSON.stringify([row[columnAt.run], row[columnAt.metric]]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(row);
  }
  return (run, metric) => found.get(JSON.stringify([run.label, metric])) ?? [];
})();

function drawCurves(host) {
  const metrics = [...new Set(data.runs.flatMap((run) => run.metrics))];
  const drawn = metrics.filter((metric) => data.runs.some((run) => rowsOf(run, metric).length));
  if (!drawn.length) {
    host.append(make("p", { class: "note" }, "There are no results yet, so there is nothing to draw."));
    return;
  }
  const charts = make("div", { class: "charts" });
  host.append(
    make("p", { class: "hint" }, "A line is open where a step is missing, and a cross at the bottom marks it.",
      columnAt.low === undefined ? "" : ` Bands are ${number(data.level * 100)}% confidence intervals over the sequences.`, " Drag to zoom, double-click to go back."),
    charts,
  );
  for (const metric of drawn) charts.append(curveOf(metric));
}

function curveOf(metric) {
  const names = [...new Set(data.runs.flatMap((run) => run.numbers[metric] ?? ["value"]))];
  const named = names.filter((name) => name !== "value" && !sameNumbers(metric, name));
  const choice = make("select", { "aria-label": `Which number of ${metric}`, change: draw },
    make("option", { value: "value" }, metric),
    named.map((name) => make("option", { value: name }, `${metric}: ${name}`)));
  const scale = make("input", { type: "checkbox", change: () => { touched = true; draw(); } });
  const plot = make("div", { class: "plot", role: "group" });
  const note = make("figcaption");
  let touched = false;

  function draw() {
    const name = choice.value;
    if (!touched) scale.checked = data.logarithmic.includes(name === "value" ? metric : name);
    const lines = data.runs.map((run, r) => (state.shown[r] ? lineOf(run, metric, name) : null));
    const there = lines.filter((line) => line !== null);
    const notFinite = there.reduce((sum, line) => sum + line.odd.length, 0);
    const missing = there.reduce((sum, line) => sum + line.gaps.length, 0);
    const offAxis = scale.checked ? toPositive(there) : 0;
    const traces = lines.flatMap((line, r) => (line === null ? [] : tracesOf(data.runs[r], r, line)));
    const own = name === "value" ? metric : name;
    const title = Object.hasOwn(data.axis_titles, own) ? data.axis_titles[own] : own;
    const some = traces.flatMap((trace) => trace.steps);
    const shown = layout(forPlotly(title), {
      xaxis: stepAxis(some),
      yaxis: scale.checked
        ? { type: "log", tickformat: "~g", ...logTicks(traces) }
        : { exponentformat: largest(traces) < 1e6 ? "none" : "power", separatethousands: true },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      hovermode: "closest",
      ...legendOf(there.length),
    });
    plot.setAttribute("aria-label", `${title} over the training steps, drawn; its numbers are in the table below`);
    Plotly.react(plot, traces, shown, CONFIG);
    const notes = [];
    if (missing) notes.push(`${plural(missing, "step")} not computed (\u00d7)`);
    if (notFinite) notes.push(`${plural(notFinite, "value is", "values are")} not finite (\u25b3)`);
    if (offAxis) notes.push(`${plural(offAxis, "value is", "values are")} 0 or less and not on this axis`);
    note.textContent = notes.join("; ");
  }

  const figure = make("figure", { "data-metric": metric },
    make("div", { class: "head" }, named.length ? choice : make("h3", {}, metric), make("label", {}, scale, "logarithmic values")),
    plot, note);
  onChange(draw);
  requestAnimationFrame(() => {
    draw();
    plot.on("plotly_legendclick", (event) => {
      const run = event.data[event.curveNumber].run;
      state.shown[run] = !state.shown[run];
      changed();
      return false;
    });
    plot.on("plotly_legenddoubleclick", () => false);
  });
  return figure;
}

function largest(traces) {
  return Math.max(0, ...traces.filter((trace) => trace.yaxis !== "y2").flatMap((trace) => trace.y).map(Math.abs));
}

/** Ticks of a logarithmic axis: the decades, of less than three also 2 and 5, of less than one any. */
function logTicks(traces) {
  const values = traces.filter((trace) => trace.yaxis !== "y2").flatMap((trace) => trace.y).filter((y) => y > 0);
  const span = values.length ? Math.log10(Math.max(...values) / Math.min(...values)) : 0;
  if (span < 0.9) return {};
  return { dtick: span < 3 ? "D2" : Math.ceil(span / 8) };
}

/**
 * Make lines fit for a logarithmic axis: what is 0 or less becomes a gap, bands end at the smallest
 * number that is on it. How many values are not.
 */
function toPositive(lines) {
  const all = lines.flatMap((line) => [...line.values, ...line.ends.flat()]).filter((y) => y !== null && y > 0);
  const least = Math.min(...all);
  let count = 0;
  for (const line of lines) {
    count += line.values.filter((y) => y !== null && y <= 0).length;
    line.values = line.values.map((y) => (y > 0 ? y : null));
    line.drawn = line.ends.map((each) => (each !== null && each[1] > 0 ? [Math.max(each[0], least), each[1]] : null));
  }
  return count;
}

/** Whether a number is the metric's headline number under its own name. */
function sameNumbers(metric, name) {
  return data.runs.every((run) => rowsOf(run, metric).every((row) =>
    row[columnAt[name]] === null || row[columnAt[name]] === row[columnAt.value]));
}

/** Steps and values of a run, null where there is a gap or no number; what is odd beside it. */
function lineOf(run, metric, name) {
  const values = new Map();
  const ends = new Map();
  const odd = [];
  for (const row of rowsOf(run, metric)) {
    const value = row[columnAt[name]];
    values.set(row[columnAt.step], typeof value === "number" ? value : null);
    if (typeof value === "string") odd.push(row[columnAt.step]);
    const [low, high] = name === "value" ? [row[columnAt.low], row[columnAt.high]] : [];
    if (typeof low === "number" && typeof high === "number") ends.set(row[columnAt.step], [low, high]);
  }
  const gaps = run.gaps.filter((gap) => gap.metric === metric);
  for (const gap of gaps) if (!values.has(gap.step)) values.set(gap.step, null);
  const steps = [...values.keys()].sort((a, b) => a - b);
  const both = steps.map((step) => ends.get(step) ?? null);
  return { steps, values: steps.map((step) => values.get(step)), ends: both, drawn: both, gaps, odd };
}

/** The confidence band of a line, a piece between any two gaps. */
function bandsOf(own, r, line) {
  const pieces = [[]];
  line.steps.forEach((step, i) => {
    if (line.drawn[i] === null) pieces.push([]);
    else pieces.at(-1).push([place(step), ...line.drawn[i]]);
  });
  return pieces.filter((piece) => piece.length > 1).map((piece) => {
    const back = [...piece].reverse();
    return {
      ...own, type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", showlegend: false, steps: [],
      x: [...piece, ...back].map(([x]) => x),
      y: [...piece.map(([, low]) => low), ...back.map(([, , high]) => high)],
      line: { width: 0 }, fillcolor: faint(colour(r)),
    };
  });
}

function faint(hex) {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},0.18)`;
}

function tracesOf(run, r, line) {
  const name = forPlotly(short(run.label));
  const own = { name, run: r, legendgroup: String(r) };
  const interval = (i) => (line.ends[i] ? ` (${number(line.ends[i][0], 4)} to ${number(line.ends[i][1], 4)})` : "");
  const traces = [...bandsOf(own, r, line), {
    ...own, type: "scatter", mode: "lines+markers", connectgaps: false,
    x: line.steps.map(place), y: line.values, steps: line.steps,
    text: line.steps.map((step, i) => `${name}<br>step ${whole(step)}: ${number(line.values[i], 6)}${interval(i)}`),
    hovertemplate: "%{text}<extra></extra>",
    line: { color: colour(r), width: 1.8, dash: DASHES[r % DASHES.length] },
    marker: { symbol: MARKERS[r % MARKERS.length], size: line.steps.length > 60 ? 4 : 6 },
  }];
  const marks = [
    ["x-thin", line.gaps.map((gap) => [gap.step, visible(gap.reason)])],
    ["triangle-up-open", line.odd.map((step) => [step, "not finite"])],
  ];
  for (const [symbol, points] of marks) {
    if (!points.length) continue;
    traces.push({
      ...own, type: "scatter", mode: "markers", yaxis: "y2", showlegend: false, cliponaxis: false,
      x: points.map(([step]) => place(step)), y: points.map(() => 0.02 + 0.025 * r), steps: points.map(([step]) => step),
      text: points.map(([step, why]) => `${name}<br>step ${whole(step)}: ${forPlotly(why).slice(0, 200)}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { symbol, size: 9, color: colour(r), line: { color: colour(r), width: 2 } },
    });
  }
  return traces;
}
