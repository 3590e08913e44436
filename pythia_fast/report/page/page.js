// The page as a whole: controls, summary, what is missing, times, provenance; then it is drawn.

function drawControls(host) {
  const inner = make("div");
  if (data.runs.length > 1) {
    inner.append(make("fieldset", { class: "choices" }, make("legend", { class: "skip" }, "Runs"),
      data.runs.map((run, r) => {
        const box = make("input", { type: "checkbox", checked: true, "data-run": r, change: () => { state.shown[r] = box.checked; changed(); } });
        onChange(() => { box.checked = state.shown[r]; });
        return make("label", {}, box, swatch(r), visible(run.label));
      })));
  }
  inner.append(make("fieldset", { class: "choices" }, make("legend", { class: "skip" }, "Axis of the steps"), make("span", { class: "quiet" }, "Steps:"),
    [["log", "logarithmic"], ["linear", "linear"]].map(([value, word]) => make("label", {},
      make("input", { type: "radio", name: "axis", value, checked: value === state.axis, change: () => { state.axis = value; changed(); } }), word))));
  host.append(inner);
}

/** A piece of a run's line, as the charts draw it. */
function swatch(r) {
  const line = make("line", { x1: 0, y1: 6, x2: 30, y2: 6, stroke: colour(r), "stroke-width": 2.5, "stroke-dasharray": DASH_ARRAYS[r % DASH_ARRAYS.length] });
  const marker = make("path", { d: MARKER_PATHS[r % MARKER_PATHS.length], transform: "translate(15 6)", fill: colour(r) });
  onChange(() => { line.setAttribute("stroke", colour(r)); marker.setAttribute("fill", colour(r)); });
  return make("svg", { width: 30, height: 12, "aria-hidden": "true" }, line, marker);
}

function drawSummary(host) {
  const metrics = [...new Set(data.runs.flatMap((run) => run.metrics))];
  const rows = data.runs.map((run) => {
    const steps = [...new Set(run.metrics.flatMap((metric) => rowsOf(run, metric).map((row) => row[columnAt.step])))].sort((a, b) => a - b);
    const missing = new Set(run.gaps.map((gap) => gap.step)).size;
    return [
      visible(run.label),
      steps.length ? `${whole(steps.length)}:\u00a0${whole(steps[0])}\u00a0to\u00a0${whole(steps.at(-1))}` : "none",
      whole(run.sequences.looked_at),
      ...metrics.map((metric) => fromTo(run, metric)),
      missing ? make("span", { class: "bad" }, plural(missing, "step")) : "nothing",
    ];
  });
  host.append(smallTable("The runs", ["run", "steps", "sequences", ...metrics, "missing"], rows, [2]));
  drawMissing(host);
}

function fromTo(run, metric) {
  if (!run.metrics.includes(metric)) return "\u2013";
  const rows = rowsOf(run, metric).filter((row) => row[columnAt.value] !== null);
  if (!rows.length) return "no numbers";
  const shown = (row) => number(row[columnAt.value], 4);
  return rows.length === 1 ? shown(rows[0]) : `${shown(rows[0])} \u2192\u00a0${shown(rows.at(-1))}`;
}

/** Gaps, failures and remarks: what is missing, and what is known to be odd. */
function drawMissing(host) {
  const several = data.runs.length > 1;
  const lines = [];
  for (const run of data.runs) {
    const failed = new Map(run.failures.map((each) => [each.step, `failed: ${each.error}: ${each.message}`]));
    const reasons = new Map();
    const all = [...new Set([...run.gaps.map((gap) => gap.step), ...run.sequences.steps])].sort((a, b) => a - b);
    const told = new Set(run.gaps.map((gap) => gap.step));
    const gaps = [...run.gaps, ...run.failures.filter((each) => !told.has(each.step)).map((each) => ({ step: each.step, metric: run.metrics.join(", "), reason: "" }))];
    for (const gap of gaps) {
      const reason = failed.get(gap.step) ?? gap.reason;
      if (!reasons.has(reason)) reasons.set(reason, { steps: new Set(), metrics: new Set() });
      reasons.get(reason).steps.add(gap.step);
      reasons.get(reason).metrics.add(gap.metric);
    }
    for (const [reason, { steps, metrics }] of reasons) {
      lines.push([visible(run.label), "missing", inWords([...steps].sort((a, b) => a - b), all), [...metrics].join(", "), make("div", { class: "why" }, visible(reason))]);
    }
    const odd = data.table.rows.filter((row) => row[columnAt.run] === run.label && row[columnAt.status] === "non-finite");
    if (odd.length) {
      const steps = [...new Set(odd.map((row) => row[columnAt.step]))];
      lines.push([visible(run.label), "not finite", inWords(steps, all), [...new Set(odd.map((row) => row[columnAt.metric]))].join(", "), "a weight, a loss or the value is NaN or infinite"]);
    }
    const remarks = new Map();
    for (const [step, of] of Object.entries(run.remarks)) {
      for (const remark of of) {
        if (!remarks.has(remark)) remarks.set(remark, []);
        remarks.get(remark).push(Number(step));
      }
    }
    for (const [remark, steps] of remarks) {
      lines.push([visible(run.label), "known", inWords(steps, all), "", make("div", { class: "why" }, visible(remark))]);
    }
  }
  host.append(make("h3", { class: "after" }, "What is missing or odd"));
  if (!lines.length) {
    const here = data.runs.every((run) => run.knows_asked) ? "every step that was asked for is here" : "every step that was begun is here (which steps were asked for is not kept in all of the run folders)";
    host.append(make("p", {}, `Nothing: ${here}, all values are finite, and nothing odd is known of the files.`));
    return;
  }
  const heads = ["run", "what", "steps", "metrics", "why"];
  host.append(smallTable("What is missing or odd", several ? heads : heads.slice(1), several ? lines : lines.map((line) => line.slice(1))));
}

/** Stages in their order, what each is called, its colour and its pattern. */
const STAGES = [
  ["download_s", "download", "#0072B2", ""],
  ["room_s", "wait for room on the disk", "#8a8a86", "x"],
  ["verify_s", "verify", "#56B4E9", ""],
  ["open_s", "wait for files", "#8a8a86", "/"],
  ["read_s", "read", "#D55E00", ""],
  ["copy_s", "copy to the GPU", "#CC79A7", ""],
  ["compute_s", "compute", "#009E73", ""],
  ["wait_s", "compute idle", "#8a8a86", "."],
];

function drawTimes(host) {
  const some = data.runs.filter((run) => run.times.step?.length);
  if (!some.length) {
    host.append(make("p", { class: "note" }, "No step was computed, so no time was taken."));
    return;
  }
  const total = (run, stage) => (run.times[stage] ?? []).reduce((sum, each) => sum + each, 0);
  const stages = STAGES.filter(([stage]) => some.some((run) => total(run, stage) > 0));
  host.append(
    make("p", { class: "hint" }, "Stages of several steps overlap: downloads and reading go on while others are computed, so the sums exceed the time on a clock. \u201cCompute idle\u201d is what computing waited for."),
    smallTable("Time by stage", ["stage", ...some.map((run) => visible(run.label))], [
      ...stages.map(([stage, word]) => [word, ...some.map((run) => seconds(total(run, stage)))]),
      ...(some.some((run) => total(run, "received_bytes")) ? [["received", ...some.map((run) => bytes(total(run, "received_bytes")))]] : []),
    ], some.map((_, c) => c + 1)));
  const choice = make("select", { "aria-label": "Run", change: draw }, some.map((run, k) => make("option", { value: k }, visible(run.label))));
  const plot = make("div", { class: "plot", role: "group", "aria-label": "Seconds of each stage, by step" });
  host.append(make("figure", { id: "times" }, make("div", { class: "head" }, make("h3", {}, "By step"), some.length > 1 ? choice : null), plot));

  function draw() {
    const run = some[Number(choice.value) || 0];
    const steps = run.times.step.map(whole);
    const traces = stages.map(([stage, word, color, shape]) => ({
      type: "bar", name: word, x: steps, y: run.times[stage],
      marker: { color, pattern: { shape, solidity: 0.4 } },
      hovertemplate: `step %{x}<br>${word}: %{y:.3g} s<extra></extra>`,
    }));
    Plotly.react(plot, traces, layout("seconds", {
      barmode: "stack", bargap: 0.15,
      xaxis: { type: "category", title: { text: "training step", standoff: 6 }, nticks: 14 },
      yaxis: { rangemode: "tozero" },
      showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
    }), CONFIG);
  }
  onChange(draw);
  requestAnimationFrame(draw);
}

function drawProvenance(host) {
  host.append(make("p", { class: "hint" }, "All that determines a run's numbers is in its specification, which the run\u2019s hash stands for; both are as its run.json gives them. Commit, weights and versions of every single number are in the table above (\u201cshow all columns\u201d)."));
  for (const run of data.runs) {
    const { specification: spec, record } = run;
    const facts = [
      ["run folder", code(run.path)],
      ["run hash", code(run.hash)],
      ["model", spec.model],
      ["weights from", code(record.sources?.model)],
      ["architecture", inline(spec.architecture)],
      ["computed in", `${spec.dtype}${spec.deterministic ? ", deterministic" : ""}`],
      ["tokens", code(spec.tokens)],
      ["tokens from", code(record.sources?.tokens)],
      ["sequences", typeof spec.sequences === "object" ? inline(spec.sequences) : spec.sequences],
      ...spec.metrics.map((metric) => [`metric ${metric.name}`, [code(metric.type), ` ${inline(metric.settings)}`, metric.code ? ` code ${metric.code.slice(0, 12)}` : ""]]),
      ["versions", inline(record.versions)],
      ["machine", inline(record.machine)],
      ["command", code(Array.isArray(record.command) ? record.command.join(" ") : null)],
    ];
    host.append(make("details", { open: data.runs.length === 1 },
      make("summary", {}, visible(run.label)),
      make("dl", {}, facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) =>
        [make("dt", {}, visible(name)), make("dd", {}, typeof value === "string" ? visible(value) : value)]))));
  }
}

function code(text) {
  return text === null || text === undefined ? null : make("code", {}, visible(String(text)));
}

function inline(object) {
  if (object === null || object === undefined) return "";
  return Object.entries(object).map(([name, value]) => `${name} ${typeof value === "object" && value !== null ? JSON.stringify(value) : value}`).join(", ");
}

/** Another theme: all charts again, in its colours. */
function repaint() {
  changed();
}

section("made").textContent = `Made by pythia-fast ${data.version} on ${data.made}. One file, which asks no network for anything.`;
drawControls(section("controls"));
new ResizeObserver(() => { // a section that a link leads to begins below the controls
  const sticky = getComputedStyle(section("controls")).position === "sticky";
  document.documentElement.style.scrollPaddingTop = `${(sticky ? section("controls").offsetHeight : 0) + 8}px`;
}).observe(section("controls"));
drawSummary(section("summary"));
drawCurves(section("curves"));
drawResults(section("results"));
drawSequences(section("sequences"));
drawTimes(section("time"));
drawProvenance(section("provenance"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
addEventListener("beforeprint", () => {
  printing = true;
  for (const each of document.querySelectorAll("details")) each.open = true;
  repaint();
});
addEventListener("afterprint", () => { printing = false; repaint(); });
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = "yes"; }));
