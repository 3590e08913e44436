// All numbers: the table of all runs.

const ORIGINS = ["commit", "weights_sha256", "dtype", "device", "tokens_fingerprint", "version"];

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
    title: ["low", "high"].includes(name) ? `the value\u2019s ${number(data.level * 100)}% confidence interval over the sequences` : name === "duplicate_of" ? "the step with the same weights, from which the values are" : null,
  }));
  const byLabel = new Map(data.runs.map((run, r) => [run.label, r]));
  const all = make("input", { type: "checkbox", id: "origins", change: () => grid.hide(ORIGINS, !all.checked) });
  host.append(
    make("p", { class: "hint" }, "Filter by words that a row must have, or by comparisons such as ", make("span", { class: "code" }, "step>=1000 value<20"), ". A heading sorts."),
    make("label", {}, all, "show where each number is from"));
  const grid = makeGrid(host, {
    label: "All numbers", columns, rows: data.table.rows, kept: (row) => state.shown[byLabel.get(row[0])],
  });
  grid.hide(several ? ["model", ...ORIGINS] : ["run", ...ORIGINS], true);
  const save = make("button", { type: "button", click: () => saveCsv(data.table.columns, grid.found()) }, "Save as CSV");
  host.querySelector(".tools").append(save);
  onChange(() => grid.draw());
}

/** Give the rows that are found as a file; nothing leaves this machine. */
function saveCsv(names, rows) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const text = [names, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n");
  const address = URL.createObjectURL(new Blob([text, "\r\n"], { type: "text/csv" }));
  make("a", { href: address, download: "results.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
