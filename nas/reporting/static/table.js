// The table of candidates: filters by keyboard, sorting, pins, and a file of what is shown.

const MOST_COLUMNS = 8;  // of metrics; a candidate's own panel shows all
const table = { key: null, ascending: true, limit: 50 };

function tableColumns() {
  const c = page.data.candidates;
  const metrics = metricNames().filter((metric) => objectiveNames().includes(metric) || !metric.includes("[")).slice(0, MOST_COLUMNS);
  const columns = [
    { key: "id", title: "candidate", value: (i) => c.id[i] },
    { key: "state", title: "state", value: (i) => (c.is_reference[i] ? "reference" : c.on_front[i] ? "front" : c.state[i]) },
    ...metrics.map((metric) => ({ key: metric, title: metric, number: true, value: (i) => valueOf(i, metric), text: (i) => withSpread(i, metric) })),
    ...Object.keys(c.tested).map((metric) => ({ key: "test_" + metric, title: "test " + metric, number: true, value: (i) => c.tested[metric][i], text: (i) => written(metric, c.tested[metric][i]) })),
    { key: "batch", title: "batch", number: true, value: (i) => c.batch[i] },
    { key: "description", title: "network", wide: true, value: (i) => c.description[i] },
  ];
  return columns;
}

function withSpread(i, metric) {
  const spread = page.data.candidates.spread[metric];
  const text = written(metric, valueOf(i, metric));
  return text && spread && spread[i] !== null ? text + " ± " + spread[i].toPrecision(2) : text;
}

function sortedRows() {
  const c = page.data.candidates;
  const rows = [];
  for (let i = 0; i < c.n; i++) if (page.visible[i] || page.pinned.has(i)) rows.push(i);
  const column = tableColumns().find((one) => one.key === table.key);
  const sign = table.ascending ? 1 : -1;
  const order = (a, b) => {
    const pinned = page.pinned.has(b) - page.pinned.has(a);
    if (pinned) return pinned;
    if (!column) return c.on_front[b] - c.on_front[a] || a - b;
    const [va, vb] = [column.value(a), column.value(b)];
    if (va === null || va === undefined) return vb === null || vb === undefined ? a - b : 1;
    if (vb === null || vb === undefined) return -1;
    return (va < vb ? -1 : va > vb ? 1 : 0) * sign || a - b;
  };
  return rows.sort(order);
}

function drawTable() {
  const columns = tableColumns(), rows = sortedRows(), c = page.data.candidates;
  const heads = columns.map((column) => element("th", { class: column.number ? "number" : "", scope: "col", "aria-sort": column.key === table.key ? (table.ascending ? "ascending" : "descending") : "none" },
    element("button", { "data-sort": column.key, onclick: () => sortBy(column.key) }, column.title + (column.key === table.key ? (table.ascending ? " ▲" : " ▼") : ""))));
  const body = rows.slice(0, table.limit).map((i) => element("tr", { tabindex: "0", "data-i": i, class: (c.on_front[i] ? "front " : "") + (i === page.chosen ? "chosen" : ""), "aria-selected": i === page.chosen ? "true" : "false" },
    ...columns.map((column, k) => element("td", { class: column.number ? "number" : column.wide ? "text" : column.key, title: column.wide ? column.value(i) : false }, ...(k ? [] : [pinButton(i), " "]), cellText(column, i)))));
  const node = document.getElementById("table");
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset : {};
  node.replaceChildren(element("caption", { class: "note" }, `${rows.length} of ${c.n} candidates`), element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body));
  document.getElementById("more").hidden = rows.length <= table.limit;
  if (focused.sort) node.querySelector(`[data-sort="${CSS.escape(focused.sort)}"]`).focus();
  else if (focused.pin) { const again = node.querySelector(`[data-pin="${focused.pin}"]`); if (again) again.focus(); }
  else if (focused.i) { const again = node.querySelector(`tr[data-i="${focused.i}"]`); if (again) again.focus(); }
}

function cellText(column, i) {
  const value = column.text ? column.text(i) : column.value(i);
  const mark = column.key === "id" && page.data.candidates.id[i] === page.data.candidates.knee ? " *" : "";
  const tied = column.key === "id" && page.data.candidates.ties[page.data.candidates.id[i]] ? " ≈" : "";
  return (value === null || value === undefined ? "" : String(value)) + mark + tied;
}

function pinButton(i) {
  const isPinned = page.pinned.has(i);
  return element("button", { "data-pin": i, "aria-pressed": isPinned ? "true" : "false", title: "pin to the top", onclick: (event) => {
    event.stopPropagation();
    if (isPinned) page.pinned.delete(i); else page.pinned.add(i);
    notify("pinned");
  } }, isPinned ? "●" : "○");
}

function sortBy(key) {
  if (table.key === key) table.ascending = !table.ascending;
  else Object.assign(table, { key, ascending: true });
  drawTable();
}

function csvText() {
  const quote = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (/^[=+@\t\r]/.test(text) || /^-[^0-9.]/.test(text)) text = "'" + text;  // spreadsheets take these for formulas
    return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const columns = tableColumns();
  const rows = sortedRows().map((i) => columns.map((column) => quote(column.value(i))).join(","));
  return [columns.map((column) => quote(column.key)).join(","), ...rows].join("\n") + "\n";
}

function saveCsv() {
  const link = element("a", { href: "data:text/csv;charset=utf-8," + encodeURIComponent(csvText()), download: "candidates.csv" });
  document.body.append(link);
  link.click();
  link.remove();
}

function buildTable() {
  const filters = document.getElementById("filters");
  for (const metric of objectiveNames()) {
    const bounds = { low: null, high: null };
    const change = () => setFilters({ [metric]: bounds.low === null && bounds.high === null ? null : [bounds.low ?? -Infinity, bounds.high ?? Infinity] });
    const input = (side, label) => element("input", { type: "number", step: "any", placeholder: label, "aria-label": `${metric} ${label}`, "data-filter": metric, "data-side": side, onchange: (event) => { bounds[side] = event.target.value === "" ? null : Number(event.target.value); change(); } });
    filters.append(element("label", {}, metric, element("span", { class: "pair" }, input("low", "at least"), input("high", "at most"))));
  }
  document.getElementById("tools").append(
    element("button", { id: "clear", onclick: clearFilters }, "Clear filters"),
    element("button", { id: "save", onclick: saveCsv }, "Save as CSV"));
  document.getElementById("more").addEventListener("click", () => { table.limit += 400; drawTable(); });
  const body = document.getElementById("table");
  const opened = (event) => { const row = event.target.closest("tr[data-i]"); if (row && !event.target.closest("button")) { choose(Number(row.dataset.i)); return true; } return false; };
  body.addEventListener("click", opened);
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && opened(event)) document.getElementById("detail").focus();
    const row = event.target.closest("tr[data-i]");
    const next = row && (event.key === "ArrowDown" ? row.nextElementSibling : event.key === "ArrowUp" ? row.previousElementSibling : null);
    if (next) { next.focus(); event.preventDefault(); }
  });
}

function clearFilters() {
  for (const input of document.querySelectorAll("[data-filter]")) { input.value = ""; input.dispatchEvent(new Event("change")); }
  frontChart.chart.dispatchAction({ type: "brush", areas: [] });
  page.filters = {};
  buildParallelAnew();
  updateVisible();
}
