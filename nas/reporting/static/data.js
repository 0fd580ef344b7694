"use strict";
// The run's data, the filters on it, and how values are written. Everything else reads from here.

const page = { data: null, filters: {}, pinned: new Set(), chosen: null, onlyFront: false, listeners: [] };

async function readData() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  page.data = JSON.parse(await new Response(stream).text());
  const c = page.data.candidates;
  if (!c) return;  // the page of several runs
  c.n = c.id.length;
  c.index = new Map(c.id.map((id, i) => [id, i]));
  page.visible = new Array(c.n).fill(true);
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function objectiveNames() {
  return page.data.objectives.map((objective) => objective.metric);
}

function metricNames() {
  const names = Object.keys(page.data.candidates.metrics);
  return [...objectiveNames().filter((name) => names.includes(name)), ...names.filter((name) => !objectiveNames().includes(name))];
}

function valueOf(i, metric) {
  const column = page.data.candidates.metrics[metric];
  return column ? column[i] : null;
}

function written(metric, value) {
  if (value === null || value === undefined) return "";
  const unit = page.data.units[metric] || "";
  if (unit === "count") return Math.round(value).toLocaleString("en-US");
  if (unit === "bytes") return (value / 2 ** 20).toFixed(2) + " MiB";
  const text = Number(value.toPrecision(unit === "ms" ? 3 : 4));
  return String(text) + (unit ? " " + unit : "");
}

// A metric may have a logarithmic axis where its values span decades; a score between 0 and 1 never has one.
function isLogarithmic(metric) {
  const values = page.data.candidates.metrics[metric].filter((value) => value !== null);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return low > 0 && high > 1 && high / low > 30;
}

function setFilters(changes) {
  for (const [metric, range] of Object.entries(changes)) {
    if (range === null) delete page.filters[metric];
    else page.filters[metric] = range;
  }
  updateVisible();
}

function updateVisible() {
  const c = page.data.candidates;
  const ranges = Object.entries(page.filters);
  for (let i = 0; i < c.n; i++) {
    page.visible[i] = (!page.onlyFront || c.on_front[i] || c.is_reference[i]) && ranges.every(([metric, [low, high]]) => {
      const value = valueOf(i, metric);
      return value !== null && value >= low && value <= high;
    });
  }
  notify("visible");
}

function choose(i) {
  page.chosen = i;
  notify("chosen");
}

function notify(what) {
  for (const listener of page.listeners) listener(what);
}

function copyText(text, button) {
  const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); };
  const byHand = () => {
    const area = element("textarea", {});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    done();
  };
  if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, byHand);
  else byHand();
}
