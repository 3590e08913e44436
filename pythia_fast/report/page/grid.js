// A table to sort, filter and turn over page by page; only a page of rows is ever in the document.

const COMPARED = /^(\w[\w-]*)(<=|>=|!=|=|<|>)(.+)$/;

/**
 * columns: [{name, kind: "number" | "word" | "hash" | "text", show(value), title, choose}]; rows:
 * arrays of values. `kept(row)` says which rows there are at all; `opened` makes the first column a
 * button.
 */
function makeGrid(host, { label, columns, rows, page = 20, hint = "words, or step>=1000", kept = () => true, opened = null, sort = null }) {
  const grid = { from: 0, sort, hidden: new Set(), chosen: new Map(), selected: null };
  const search = make("input", { type: "search", "aria-label": `Filter: ${label}`, placeholder: hint, input: refilter });
  const tools = make("div", { class: "tools" }, search);
  columns.forEach((column, c) => {
    if (!column.choose) return;
    const values = [...new Set(rows.map((row) => row[c]))].sort();
    if (values.length < 2) return;
    const select = make("select", { "aria-label": column.name, change: () => { grid.chosen.set(c, select.value); refilter(); } },
      make("option", { value: "" }, `all: ${column.name}`),
      values.map((value) => make("option", { value: String(value) }, visible(String(value)))));
    tools.append(select);
  });
  const count = make("span", { class: "count quiet", role: "status" });
  tools.append(count);
  const head = make("tr");
  const body = make("tbody");
  const table = make("table", { "aria-label": label }, make("thead", {}, head), body);
  const back = make("button", { type: "button", click: () => turn(-1) }, "Previous");
  const on = make("button", { type: "button", click: () => turn(1) }, "Next");
  const where = make("span", { class: "quiet" });
  const pager = make("div", { class: "pager" }, back, on, where);
  host.append(tools, make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table), pager);
  let found = [];
  let problem = "";

  /** A cell's text, as it is shown. */
  function shownText(row, c) {
    const { show, kind } = columns[c];
    return String(show ? show(row[c], row) : cell(row[c], kind));
  }

  function refilter() {
    grid.from = 0;
    draw();
  }

  function turn(direction) {
    grid.from += direction * page;
    draw();
  }

  function matching() {
    problem = "";
    const tests = search.value.trim().split(/\s+/).filter(Boolean).map(test);
    return rows.filter((row) => kept(row)
      && [...grid.chosen].every(([c, value]) => value === "" || String(row[c]) === value)
      && tests.every((each) => each(row)));
  }

  /** One word of the filter: `name>=value` compares, anything else is looked for in all columns. */
  function test(word) {
    const match = COMPARED.exec(word);
    const c = match ? columns.findIndex((column) => column.name.replaceAll(" ", "_") === match[1]) : -1;
    if (c < 0) {
      const wanted = word.toLowerCase();
      return (row) => row.some((value, i) => !grid.hidden.has(i) && value !== null
        && (String(value).toLowerCase().includes(wanted) || shownText(row, i).toLowerCase().includes(wanted)));
    }
    const wanted = Number(match[3].replace(/,/g, "").replace("\u2212", "-"));
    if (/[<>]/.test(match[2])) {
      if (Number.isNaN(wanted)) problem = `\u201c${visible(match[3])}\u201d is no number to compare with; `;
      else if (columns[c].kind !== "number") problem = `${visible(match[1])} is no number; `;
    }
    return (row) => {
      const value = row[c];
      if (match[2] === "=") return String(value) === match[3] || value === wanted;
      if (match[2] === "!=") return String(value) !== match[3] && value !== wanted;
      if (typeof value !== "number") return false;
      return { "<": value < wanted, ">": value > wanted, "<=": value <= wanted, ">=": value >= wanted }[match[2]];
    };
  }

  function sortBy(c) {
    const turned = grid.sort && grid.sort.column === c && grid.sort.up;
    grid.sort = { column: c, up: !turned };
    refilter();
  }

  function draw() {
    found = matching();
    if (grid.sort) {
      const { column, up } = grid.sort;
      found = found.map((row, i) => [row, i]).sort(([a, i], [b, j]) => compare(a[column], b[column], up) || i - j).map(([row]) => row);
    }
    grid.from = Math.max(0, Math.min(grid.from, Math.floor(Math.max(found.length - 1, 0) / page) * page));
    const focused = document.activeElement && head.contains(document.activeElement) ? document.activeElement.textContent : null;
    head.replaceChildren(...columns.map((column, c) => grid.hidden.has(c) ? null : headOf(column, c)).filter(Boolean));
    if (focused !== null) [...head.querySelectorAll("button")].find((each) => each.textContent === focused)?.focus();
    body.replaceChildren(...found.slice(grid.from, grid.from + page).map(line));
    count.textContent = problem + (found.length === rows.length ? plural(rows.length, "row") : `${whole(found.length)} of ${plural(rows.length, "row")}`);
    pager.hidden = found.length <= page;
    back.disabled = grid.from === 0;
    on.disabled = grid.from + page >= found.length;
    where.textContent = `rows ${whole(grid.from + 1)} to ${whole(Math.min(grid.from + page, found.length))} of ${whole(found.length)}`;
  }

  function headOf(column, c) {
    const sorted = grid.sort && grid.sort.column === c ? (grid.sort.up ? "ascending" : "descending") : "none";
    return make("th", { scope: "col", class: column.kind, "aria-sort": sorted, title: column.title },
      make("button", { type: "button", click: () => sortBy(c) }, column.name));
  }

  function line(row) {
    const cells = columns.map((column, c) => {
      if (grid.hidden.has(c)) return null;
      const shown = column.show ? column.show(row[c], row) : cell(row[c], column.kind);
      const long = column.kind === "hash" && row[c] !== null ? visible(String(row[c])) : null;
      if (opened && column.opens) {
        return make("td", { class: column.kind }, make("button", { type: "button", click: () => opened(row) }, shown));
      }
      return make("td", { class: column.kind, title: long }, shown);
    });
    return make("tr", { "aria-selected": grid.selected === row ? "true" : false }, cells);
  }

  function cell(value, kind) {
    if (kind === "number") return number(value);
    if (value === null || value === undefined) return "\u2013";
    const text = visible(String(value));
    return kind === "hash" && text.length > 12 ? `${text.slice(0, 10)}\u2026` : text;
  }

  return {
    draw,
    found: () => found,
    select(row) {
      grid.selected = row;
      draw();
    },
    hide(names, hidden) {
      columns.forEach((column, c) => {
        if (names.includes(column.name)) grid.hidden[hidden ? "add" : "delete"](c);
      });
      draw();
    },
  };
}

/** Numbers by size, words by the alphabet, what is not known at the end either way. */
function compare(a, b, up) {
  const unknown = (value) => value === null || value === undefined;
  if (unknown(a) || unknown(b)) return Number(unknown(a)) - Number(unknown(b));
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : Number(String(a) > String(b));
  return up ? order : -order;
}

/** A small table that is all there: heads, and rows of texts or elements. */
function smallTable(label, heads, rows, numbers = []) {
  const kind = (c) => (numbers.includes(c) ? "number" : null);
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    make("table", { "aria-label": label },
      make("thead", {}, make("tr", {}, heads.map((head, c) => make("th", { scope: "col", class: kind(c) }, head)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((value, c) =>
        make(c === 0 ? "th" : "td", { class: kind(c), scope: c === 0 ? "row" : null }, value)))))));
}
