// All numbers: the table of all runs.

const ORIGINS = ["commit", "weights_sha256", "dtype", "device", "tokens_fingerprint", "version"];

const TITLES = {
  run: "the run folder\u2019s name on this page",
  model: "the model whose checkpoints these are",
  step: "the training step of the checkpoint",
  metric: "what was asked of every sequence",
  value: "the metric\u2019s first number",
  low: `the lower end of the value\u2019s ${number(data.level * 100)}% confidence interval over the sequences`,
  high: `the upper end of the value\u2019s ${number(data.level * 100)}% confidence interval over the sequences`,
  status: "ok, or non-finite where a weight, a loss or the value is NaN or infinite",
  sequences: "how many sequences it is over",
  duplicate_of: "the step with the same weights, from which the values are",
  commit: "the commit of the checkpoint",
  weights_sha256: "the sha256 of the weights",
  dtype: "what was computed in",
  device: "what it was computed on",
  tokens_fingerprint: "the fingerprint of the tokens",
  version: "the version of pythia-fast",
};

function titleOf(name) {
  if (Object.hasOwn(TITLES, name)) return TITLES[name];
  const whose = [...new Set(data.runs.flatMap((run) => run.metrics.filter((metric) => run.numbers[metric]?.includes(name))))];
  return `a number of ${visible(whose.join(", "))}`;
}

/** Whether a column only repeats the values under a name of their own. */
function isValue(name) {
  const c = columnAt[name];
  return data.table.rows.every((row) => row[c] === null || row[c] === row[columnAt.value]);
}

function drawResults(host) {
  if (!data.table.rows.length) {
    host.append(make("p", { class: "note" }, "There are no results yet."));
    return;
  }
  const several = data.runs.length > 1;
  const words = ["run", "model", "metric", "status"];
  const columns = data.table.columns.map((name) => ({
    name,
    kind: ["commit", "weights_sha256", "tokens_fingerprint"].includes(name) ? "hash"
      : words.includes(name) || ORIGINS.includes(name) ? "word" : "number",
    choose: ["metric", "status"].includes(name) || (name === "run" && several),
    show: name === "value" ? (value) => number(value, 6) : ["low", "high"].includes(name) ? (value) => number(value, 4) : null,
    title: titleOf(name),
  }));
  const byLabel = new Map(data.runs.map((run, r) => [run.label, r]));
  const all = make("input", { type: "checkbox", id: "origins", change: () => grid.hide(more, !all.checked) });
  const repeated = data.table.columns.filter((name) => !Object.hasOwn(TITLES, name) && isValue(name));
  const more = [...ORIGINS, ...repeated];
  host.append(
    make("p", { class: "hint" }, "Filter by words that a row must have, or by comparisons such as ", make("span", { class: "code" }, "step>=1000 value<20"), ". A heading sorts."),
    make("label", {}, all, "show all columns, with where each number is from"));
  const grid = makeGrid(host, {
    label: "All numbers", columns, rows: data.table.rows, kept: (row) => state.shown[byLabel.get(row[0])],
  });
  grid.hide([several ? "model" : "run", ...more], true);
  const save = make("button", { type: "button", click: () => saveCsv(data.table.columns, grid.found()) }, "Save as CSV");
  host.querySelector(".tools").append(save);
  onChange(() => grid.draw());
}

/** Give the rows that are found as a file; nothing leaves this machine. */
function saveCsv(names, rows) {
  const quoted = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet takes such words for formulas.
    if (typeof value === "string" && value !== "-inf" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const text = [names, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n");
  const address = URL.createObjectURL(new Blob([text, "\r\n"], { type: "text/csv" }));
  make("a", { href: address, download: "results.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
