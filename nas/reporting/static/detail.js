// One candidate: drawing, costs by module, training curve, and the commands to copy.

function commandsOf(i) {
  const c = page.data.candidates;
  if (!page.data.builds_networks) return [];
  const name = c.is_reference[i] ? c.description[i] : c.id[i];
  const on = `${page.data.quoted_path} --candidate ${name}`;
  const commands = [`nas profile ${on}`];
  if (c.state[i] === "complete") commands.push(`nas retrain ${on} --epochs 30`, `nas export ${on}`, `nas bundle ${on} --out product`);
  return commands;
}

function drawDetail() {
  const i = page.chosen, c = page.data.candidates, node = document.getElementById("detail");
  if (i === null) return;
  const id = c.id[i], found = page.data.details[id] || {};
  const marks = [c.is_reference[i] ? "reference" : c.state[i]];
  if (c.on_front[i]) marks.push("on the front");
  if (id === c.knee) marks.push("the knee");
  if (c.ties[id]) marks.push("tied within noise with " + c.ties[id].join(", "));
  const parts = [element("h3", {}, id), element("p", { class: "note" }, marks.join("; ")), element("p", {}, c.description[i])];
  if (c.reason[i]) parts.push(element("p", { class: "alarm card" }, c.reason[i]));
  const main = metricNames().filter((metric) => objectiveNames().includes(metric));
  parts.push(valuesTable(i, main, true));
  if (found.svg) parts.push(element("img", { src: "data:image/svg+xml;charset=utf-8," + encodeURIComponent(found.svg), alt: "Drawing of the network " + id }));
  const commands = commandsOf(i);
  const curve = element("div", { class: "chart small", role: "img", "aria-label": "Loss by epoch" });
  if (c.losses[i].length > 1) parts.push(element("h3", {}, "Loss by epoch"), curve);
  for (const command of commands) {
    parts.push(element("div", { class: "command" }, element("code", {}, command), element("button", { "aria-label": "copy: " + command, onclick: (event) => copyText(command, event.target) }, "copy")));
  }
  if (found.modules) parts.push(element("h3", {}, "Costs by module"), modulesTable(found.modules));
  else if (commands.length) parts.push(element("p", { class: "note" }, "Costs by module: the first command shows them."));
  const others = metricNames().filter((metric) => !main.includes(metric) && valueOf(i, metric) !== null);
  if (others.length) parts.push(element("details", {}, element("summary", {}, `${others.length} further metrics`), valuesTable(i, others, false)));
  if (drawDetail.chart) charts.splice(charts.indexOf(drawDetail.chart), 1)[0].dispose();
  drawDetail.chart = null;
  node.replaceChildren(...parts);
  if (c.losses[i].length > 1) {
    drawDetail.chart = chartIn(curve);
    drawDetail.chart.setOption(base({ grid: { left: 50, right: 15, top: 10, bottom: 40 }, tooltip: { trigger: "axis", renderMode: "richText", confine: true }, xAxis: { type: "category", data: c.losses[i].map((_, k) => k + 1), name: "epoch", nameLocation: "middle", nameGap: 25 }, yAxis: { type: "value", scale: true }, series: [{ type: "line", data: c.losses[i], symbol: "circle" }] }));
  }
}

function valuesTable(i, metrics, isMain) {
  const c = page.data.candidates, rows = [];
  for (const metric of metrics) {
    if (valueOf(i, metric) === null) continue;
    const rounds = c.rounds[c.id[i]] && c.rounds[c.id[i]][metric];
    rows.push(element("tr", {}, element("td", {}, metric), element("td", { class: "number" }, withSpread(i, metric)), element("td", { class: "note" }, (rounds ? written(metric, rounds[0]) + " .. " + written(metric, rounds[1]) + "; " : "") + (c.conditions[metric] || ""))));
  }
  for (const [metric, values] of isMain ? Object.entries(c.tested) : []) {
    if (values[i] !== null) rows.push(element("tr", {}, element("td", {}, "test " + metric), element("td", { class: "number" }, written(metric, values[i])), element("td", { class: "note" }, "after full training")));
  }
  return element("div", { class: "scroll" }, element("table", {}, element("tbody", {}, ...rows)));
}

function modulesTable(modules) {
  const head = ["module", "parameters", "MACs", "output"];
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Costs by module" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((name, k) => element("th", { scope: "col", class: k === 1 || k === 2 ? "number" : "" }, name)))),
    element("tbody", {}, ...modules.map((row) => element("tr", {}, element("td", {}, row[0]), element("td", { class: "number" }, row[1].toLocaleString("en-US")), element("td", { class: "number" }, row[2].toLocaleString("en-US")), element("td", {}, row[3]))))));
}
