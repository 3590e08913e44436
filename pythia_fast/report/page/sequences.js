// The sequences: which were memorized and when; each opens in the reader.

/** What became of a sequence, from its row of the page's arrays. */
function fateOf(sequences, columns, i) {
  const count = sequences.steps.length;
  let first = null, lost = null, times = 0, before = 0, last = -1, known = null, from = null, to = null;
  for (let s = 0; s < count; s += 1) {
    const now = columns.memorized[i * count + s];
    if (now >= 0) {
      if (now === 1 && first === null) first = sequences.steps[s];
      if (now === 0 && before === 1) {
        times += 1;
        lost = sequences.steps[s];
      }
      before = last = now;
      known = sequences.steps[s];
    }
    const loss = columns.loss[i * count + s];
    if (!Number.isNaN(loss)) {
      if (from === null) from = loss;
      to = loss;
    }
  }
  return { first, lost, times, kept: first === null || last < 0 ? null : last === 1, known, from, to };
}

function drawSequences(host) {
  const rows = [];
  let memory = false, losses = false;
  data.runs.forEach((run, r) => {
    const sequences = run.sequences;
    const columns = Object.fromEntries(Object.entries(sequences.columns).map(([name, array]) => [name, unpacked(array)]));
    run.columns = columns;
    sequences.rows.forEach((row, i) => {
      const fate = fateOf(sequences, columns, i);
      memory ||= fate.first !== null;
      losses ||= fate.from !== null;
      const text = sequences.pieces ? sequences.pieces[i].slice(0, 64).join("") : null;
      const begun = fate.first === null ? "\u2013" : fate.kept ? `kept to ${whole(fate.known)}` : `lost at ${whole(fate.lost)}`;
      rows.push([r, i, run.label, row, fate.first, begun, fate.times, fate.from, fate.to, text]);
    });
  });
  drawMemory(host);
  for (const run of data.runs) {
    const { notes } = run.sequences;
    if (notes.length) host.append(make("p", { class: "note" }, data.runs.length > 1 ? `${visible(run.label)}: ` : "", visible(notes.join(" "))));
  }
  if (!rows.length) {
    host.append(make("p", { class: "note" }, "No sequence was looked at."));
    return;
  }
  const reader = makeReader();
  const columns = [
    { name: "r", kind: "number" },
    { name: "i", kind: "number" },
    { name: "run", kind: "word", choose: true, title: "the run folder\u2019s name on this page" },
    { name: "sequence", kind: "number", opens: true, show: whole, title: "its row in the data" },
    { name: "memorized at", kind: "number", show: (value) => (value === null ? "\u2013" : whole(value)), title: "the first step at which it was memorized" },
    { name: "at the end", kind: "word", title: "the last step of which it is known, where it still was memorized; or the step at which it no longer was" },
    { name: "times lost", kind: "number", title: "how often it no longer was memorized" },
    { name: "first loss", kind: "number", show: (value) => number(value, 4), title: "nats per token at the first step that is known" },
    { name: "last loss", kind: "number", show: (value) => number(value, 4), title: "nats per token at the last step that is known" },
    { name: "text", kind: "text", show: shortly, title: "how it begins" },
  ];
  const list = make("div", { id: "list" });
  host.append(list, reader.element);
  const grid = makeGrid(list, {
    label: "Sequences", hint: memory ? "words, or memorized_at<1000" : "words, or last_loss>2", columns, rows, page: 12, kept: (row) => state.shown[row[0]],
    opened: (row) => {
      open(row);
      reader.element.scrollIntoView({ block: "nearest" });
      reader.focus();
    },
  });
  const hidden = ["r", "i"];
  if (data.runs.length === 1) hidden.push("run");
  if (!memory) hidden.push("memorized at", "at the end", "times lost");
  if (!losses) hidden.push("first loss", "last loss");
  if (rows.every((row) => row[9] === null)) hidden.push("text");

  function open(row) {
    grid.select(row);
    reader.open(data.runs[row[0]], row[0], row[1]);
  }

  grid.hide(hidden, true);
  onChange(() => {
    grid.draw();
    reader.draw();
  });
  open(grid.found()[0]);
}

function shortly(text) {
  if (text === null) return "\u2013";
  const shown = visible(text);
  return shown.length > 110 ? `${shown.slice(0, 108)}\u2026` : shown;
}

/** What a run memorized, in words: by which metric, at some step and at the last that is known. */
function tally(run) {
  const { looked_at, memorized_ever: ever, memorized, steps } = run.sequences;
  const about = run.continuation;
  const by = about ? ` (${visible(about.metric)}: ${plural(about.prompt, "token")}, continued by ${whole(about.continuation)})` : "";
  const others = about?.others.length ? ` Of ${visible(about.others.join(", "))} only the numbers above are shown.` : "";
  const of = `Of ${plural(looked_at, "sequence")}`;
  if (!ever) return `${of} none was memorized at any step${by}.${others}`;
  const s = memorized.count.findLastIndex((count) => count !== null);
  const last = s === steps.length - 1 ? "the last" : "the last that is known";
  return `${of} ${whole(ever)} ${ever === 1 ? "was" : "were"} memorized at some step, ${whole(memorized.count[s])} at step ${whole(steps[s])}, ${last}${by}.${others}`;
}

/** How many sequences each run memorized, gained and lost at each step. */
function drawMemory(host) {
  const some = data.runs.filter((run) => run.sequences.memorized.count.some((count) => count !== null));
  for (const run of some) host.append(make("p", {}, data.runs.length > 1 ? `${visible(run.label)}: ` : "", tally(run)));
  const changing = some.filter((run) => run.sequences.memorized_ever && run.sequences.memorized.gained.some((count) => count !== null));
  if (!changing.length) return;
  const plot = make("div", { class: "plot low", role: "group", "aria-label": "Sequences newly memorized, above, and no longer memorized, below, at each step" });
  host.append(make("figure", { id: "memory" }, make("h3", {}, "Gained and lost since each was last looked at"), plot, make("figcaption")));

  function draw() {
    const traces = [];
    const drawn = changing.filter((run) => state.shown[data.runs.indexOf(run)]);
    const all = [...new Set(drawn.flatMap((run) => run.sequences.steps))].sort((a, b) => a - b);
    const most = Math.max(0, ...drawn.flatMap(({ sequences: { memorized } }) => [...memorized.gained, ...memorized.lost]));
    data.runs.forEach((run, r) => {
      if (!drawn.includes(run)) return;
      const { gained, lost } = run.sequences.memorized;
      const steps = run.sequences.steps;
      for (const [values, sign, word, opacity] of [[gained, 1, "gained", 1], [lost, -1, "lost", 0.55]]) {
        traces.push({
          type: "bar", name: forPlotly(short(run.label)), legendgroup: String(r), showlegend: sign > 0, x: steps.map((step) => whole(step)),
          y: values.map((value) => (value === null ? null : sign * value)),
          marker: { color: colour(r), opacity }, offsetgroup: String(r),
          text: steps.map((step, s) => `${forPlotly(short(run.label))}<br>step ${whole(step)}: ${number(values[s])} ${word}`),
          textposition: "none", hovertemplate: "%{text}<extra></extra>",
        });
      }
    });
    Plotly.react(plot, traces, layout("sequences", {
      barmode: "relative", bargap: 0.25,
      xaxis: { type: "category", categoryorder: "array", categoryarray: all.map(whole), title: { text: "training step", standoff: 6 }, tickangle: "auto", nticks: 14 },
      yaxis: { zeroline: true, zerolinecolor: "#888888", tickformat: ",d", ...(most <= 6 ? { dtick: 1 } : {}) },
      ...legendOf(drawn.length), // gained above, lost below the line
    }), CONFIG);
  }
  onChange(draw);
  requestAnimationFrame(draw);
}
