// The reader: a sequence's text, its losses by token as colour, a slider over the steps.

const NOT_FINITE = 65535;
const PLAY_MS = 350;
const SETTLE_MS = 120; // the chart follows when the slider rests: it takes longer than the colours

function makeReader() {
  const title = make("h3", { id: "reading" });
  const slider = make("input", { type: "range", id: "slider", min: 0, "aria-label": "Training step", input: () => { stop(); follow(); } });
  const shown = make("output", { for: "slider" });
  const play = make("button", { type: "button", click: toggle, "aria-pressed": "false" }, "Play");
  const fate = make("p", { id: "fate", role: "status" });
  const tokens = make("div", {
    id: "tokens", tabindex: 0, role: "listbox", "aria-label": "Tokens; the arrow keys choose one",
    click: (event) => { if (event.target.closest("#tokens span")) choose(spans.indexOf(event.target.closest("#tokens span"))); },
    keydown: onKey,
  });
  const scale = make("div", { class: "scale" });
  const readout = make("p", { id: "readout", role: "status" });
  const plot = make("div", { class: "plot low", role: "group" });
  const caption = make("figcaption");
  const element = make("div", { id: "reader", role: "group", "aria-labelledby": "reading" },
    title, make("div", { class: "slide" }, shown, slider, play), fate, scale, tokens, readout,
    make("figure", {}, plot, caption));
  let run = null, r = 0, i = 0, chosen = null, timer = null, nats = null, count = 0, spans = [], settling = null;

  function open(newRun, newR, newI) {
    const at = run === newRun ? slider.value : null;
    [run, r, i, chosen] = [newRun, newR, newI, null];
    count = run.sequences.steps.length;
    nats = lossesOf(run, i);
    title.textContent = `${data.runs.length > 1 ? `${visible(run.label)}, sequence` : "Sequence"} ${whole(run.sequences.rows[i])}`;
    slider.max = String(count - 1);
    slider.value = at ?? String(count - 1);
    slider.disabled = count < 2;
    play.disabled = count < 2;
    write();
    draw();
  }

  /** The tokens as spans: their text is set once, the slider changes colours only. */
  function write() {
    const { pieces, ids, lengths } = run.sequences;
    tokens.replaceChildren();
    tokens.scrollTop = 0;
    tokens.removeAttribute("aria-activedescendant");
    readout.textContent = "";
    if (pieces === null) {
      const known = nats ? nats.length : 0;
      for (let t = 0; t <= known && known; t += 1) tokens.append(make("span", { role: "option" }, t === 0 ? "[first] " : `[${t}] `));
      tokens.hidden = !known;
    } else {
      tokens.hidden = false;
      pieces[i].forEach((piece, t) => tokens.append(spanOf(piece, t, ids[i][t])));
      const more = lengths[i] - pieces[i].length;
      if (more > 0) tokens.append(make("i", {}, ` \u2026 and ${plural(more, "token")} more`));
    }
    spans = [...tokens.children].filter((each) => each.tagName === "SPAN");
    const memory = run.continuation;
    const parts = [];
    if (nats) {
      const uniform = run.vocabulary ? Math.log(run.vocabulary) : null;
      parts.push(make("span", {}, "loss: 0 ", make("span", { class: "ramp" }), ` ${number(scaleMost(), 3)} nats and more`,
        uniform ? " (as a guess among all tokens)" : ""));
    }
    if (memory && run.columns.memorized.some((each) => each >= 0)) {
      parts.push(make("span", {}, make("b", { class: "begins" }), " the continuation begins and ends"),
        make("span", {}, make("b", { class: "right" }, "right"), " when decoded greedily"),
        make("span", {}, make("b", { class: "wrong" }, "wrong"), " the first that is not"));
    }
    scale.replaceChildren(...parts);
    scale.hidden = !parts.length;
  }

  function spanOf(piece, t, id) {
    const memory = run.continuation;
    const text = visible(piece);
    const edge = memory && (t === memory.prompt || t === memory.prompt + memory.continuation);
    const span = make("span", { role: "option", class: [edge ? "begins" : "", piece === "" ? "part" : ""].join(" ").trim() || null, "data-id": id });
    if (text === piece) span.append(piece);
    else for (const letter of piece) {
      const seen = visible(letter);
      if (seen === letter) span.append(letter);
      else {
        span.append(make("i", {}, seen));
        if (letter === "\n") span.append("\n");
      }
    }
    return span;
  }

  function draw() {
    if (run === null) return;
    tell();
    drawPlot(Number(slider.value));
  }

  /** The step of the slider: colours and words at once, the chart a little later. */
  function follow() {
    tell();
    clearTimeout(settling);
    settling = setTimeout(() => drawPlot(Number(slider.value)), SETTLE_MS);
  }

  function tell() {
    const s = Number(slider.value);
    const step = run.sequences.steps[s];
    shown.textContent = `step ${whole(step)}`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    colourTokens(s);
    tellFate(s, step);
    tellToken(s);
  }

  function colourTokens(s) {
    const memory = run.continuation;
    const known = run.columns.memorized[i * count + s];
    const mismatch = run.columns.mismatch[i * count + s];
    const length = nats ? nats.length : 0;
    const most = scaleMost() * 1000;
    const strongest = Number(getComputedStyle(document.documentElement).getPropertyValue("--most"));
    for (let t = 1; t <= length && t < spans.length; t += 1) {
      const code = nats.codes[s * length + t - 1];
      const part = code === NOT_FINITE ? 0 : Math.min(code / most, 1) * strongest;
      spans[t].style.backgroundColor = `rgb(213 94 0 / ${part.toFixed(3)})`;
      spans[t].classList.toggle("unknown", code === NOT_FINITE);
    }
    if (memory === null) return;
    spans.slice(memory.prompt, memory.prompt + memory.continuation).forEach((span, position) => {
      span.classList.toggle("right", known === 1 || (known === 0 && position < mismatch));
      span.classList.toggle("wrong", known === 0 && position === mismatch);
    });
  }

  function tellFate(s, step) {
    const parts = [];
    const at = i * count + s;
    const loss = run.columns.loss[at];
    const gap = run.gaps.find((each) => each.step === step);
    if (!Number.isNaN(loss)) parts.push(`loss ${number(loss, 4)} nats per token`);
    const known = run.columns.memorized[at];
    const mismatch = run.columns.mismatch[at];
    if (known === 1) parts.push("memorized: greedy decoding gives the continuation word for word");
    if (known === 0 && mismatch === 0) parts.push("not memorized: the first token of the continuation is wrong already");
    else if (known === 0 && mismatch > 0) parts.push(`not memorized: of the continuation ${plural(mismatch, "token")} ${mismatch === 1 ? "is" : "are"} right before the first wrong one`);
    else if (known === 0) parts.push("not memorized");
    const score = run.columns.score[at];
    if (!Number.isNaN(score)) {
      const metric = run.specification.metrics.find((each) => String(each.type).endsWith(":MemorizationScore"));
      const other = metric && metric.name !== run.continuation?.metric ? ` (${visible(metric.name)})` : "";
      parts.push(`score ${number(score, 3)}${other}`);
    }
    if (gap) parts.push(`${visible(gap.metric)} is missing here: ${visible(gap.reason)}`);
    fate.textContent = parts.length ? `${parts.join("; ")}.` : "Nothing is known of this sequence at this step.";
  }

  function tellToken(s) {
    if (chosen === null) {
      readout.textContent = nats ? "Choose a token, with a click or the arrow keys, to read its loss and see it over the steps." : "";
      return;
    }
    const { pieces, ids } = run.sequences;
    const what = pieces ? `\u201c${visible(pieces[i][chosen])}\u201d, id ${ids[i][chosen]}` : "";
    const parts = [`Token ${whole(chosen + 1)}${what ? `: ${what}` : ""}`];
    if (nats && chosen > 0) {
      const code = nats.codes[s * nats.length + chosen - 1];
      if (code === undefined) parts.push("its loss is not shown");
      else if (code === NOT_FINITE) parts.push("its loss is not known or not finite at this step");
      else parts.push(`loss ${number(code / 1000, 4)} nats: the model gives it ${percent(Math.exp(-code / 1000))}`);
    } else if (chosen === 0) parts.push("the first token is never predicted, so it has no loss");
    readout.textContent = `${parts.join("; ")}.`;
  }

  function drawPlot(s) {
    const steps = run.sequences.steps;
    const traces = [];
    const add = (name, values, index, dash) => traces.push({
      type: "scatter", mode: "lines+markers", name, x: steps.map(place), y: values, connectgaps: false,
      line: { color: index === null ? colour(r) : data.palette[2], width: 1.8, dash }, marker: { size: 4 },
      text: steps.map((step, k) => `step ${whole(step)}: ${number(values[k], 4)}`), hovertemplate: `${name}<br>%{text}<extra></extra>`,
    });
    const own = Array.from({ length: count }, (_, k) => finite(run.columns.loss[i * count + k]));
    if (own.some((each) => each !== null)) add("whole sequence", own, null, "solid");
    if (nats && chosen > 0 && chosen <= nats.length) {
      add("chosen token", steps.map((_, k) => {
        const code = nats.codes[k * nats.length + chosen - 1];
        return code === NOT_FINITE ? null : code / 1000;
      }), 1, "dot");
    }
    plot.parentElement.hidden = !traces.length;
    if (!traces.length) return;
    const css = getComputedStyle(document.documentElement);
    const here = { type: "line", x0: place(steps[s]), x1: place(steps[s]), yref: "paper", y0: 0, y1: 1, line: { color: css.getPropertyValue("--quiet").trim(), width: 1.5, dash: "dot" } };
    const shapes = [here];
    const half = steps.map((step, k) => [
      k === 0 ? place(step) : (place(steps[k - 1]) + place(step)) / 2,
      k === count - 1 ? place(step) : (place(steps[k + 1]) + place(step)) / 2,
    ]);
    for (let k = 0; k < count; k += 1) {
      if (run.columns.memorized[i * count + k] !== 1) continue;
      let end = k;
      while (end + 1 < count && run.columns.memorized[i * count + end + 1] === 1) end += 1;
      shapes.push({ type: "rect", layer: "below", x0: half[k][0], x1: half[end][1], yref: "paper", y0: 0, y1: 1, line: { width: 0 }, fillcolor: "rgba(86,180,233,0.25)" });
      k = end;
    }
    caption.textContent = shapes.length > 1 ? "Shaded: the steps at which the sequence is memorized. Dotted: the step of the slider." : "Dotted: the step of the slider.";
    plot.setAttribute("aria-label", "The loss of this sequence over the training steps");
    Plotly.react(plot, traces, layout("nats per token", {
      xaxis: stepAxis(steps), yaxis: { rangemode: "tozero" }, shapes,
      showlegend: traces.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    }), CONFIG);
  }

  function scaleMost() {
    return run.vocabulary ? Math.log(run.vocabulary) : 10;
  }

  function choose(t) {
    for (const name of ["aria-selected", "id"]) spans[chosen]?.removeAttribute(name);
    chosen = Math.max(0, Math.min(t, spans.length - 1));
    spans[chosen].setAttribute("aria-selected", "true");
    spans[chosen].id = "chosen";
    tokens.setAttribute("aria-activedescendant", "chosen");
    spans[chosen].scrollIntoView({ block: "nearest" });
    draw();
  }

  function onKey(event) {
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -1e9, End: 1e9 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(chosen === null ? (event.key === "End" ? 1e9 : 0) : chosen + moves[event.key]);
  }

  function toggle() {
    if (timer !== null) return stop();
    if (Number(slider.value) === count - 1) slider.value = "0";
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      if (Number(slider.value) >= count - 1) return stop();
      slider.value = String(Number(slider.value) + 1);
      follow();
    }, PLAY_MS);
    return draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }

  return { element, open, draw, focus: () => slider.focus({ preventScroll: true }) };
}

/** The losses of a sequence, [steps, length] in thousandths of a nat; null if there are none. */
function lossesOf(run, i) {
  const kept = run.sequences.losses;
  if (kept === null) return null;
  const at = kept.index.indexOf(i);
  if (at < 0) return null;
  run.codes ??= unpacked(kept);
  const steps = run.sequences.steps.length;
  const begin = kept.lengths.slice(0, at).reduce((sum, length) => sum + length * steps, 0);
  const length = kept.lengths[at];
  return { length, codes: run.codes.subarray(begin, begin + length * steps) };
}

function finite(value) {
  return Number.isFinite(value) ? value : null;
}

function percent(share) {
  return share < 0.0001 ? "less than 0.01%" : `${number(share * 100, 3)}%`;
}
