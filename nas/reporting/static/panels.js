// Trust, progress and diversity: charts that are drawn once; a panel without data is left out.

function panel(section, title, note, option, height = "") {
  const chart = element("div", { class: "chart " + height, role: "img", "aria-label": title });
  document.getElementById(section).append(element("div", { class: "card" }, element("h3", {}, title), element("p", { class: "note" }, note), chart));
  chartIn(chart).setOption(base(option));
}

function pairs(section, title, note, points, xName, yName, metric) {
  const values = points.flatMap((point) => [point.value[0], point.value[1]]);
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const axis = (name, gap) => ({ type: "value", scale: true, name, nameLocation: "middle", nameGap: gap, axisLabel: { formatter: (value) => written(metric, value), hideOverlap: true } });
  panel(section, title, note, {
    grid: { left: 75, right: 20, top: 15, bottom: 50 }, xAxis: axis(xName, 30), yAxis: axis(yName, 58),
    tooltip: { renderMode: "richText", confine: true, formatter: (given) => given.data.id ? `${given.data.id}\n${xName} ${written(metric, given.data.value[0])}\n${yName} ${written(metric, given.data.value[1])}` : "" },
    series: [{ type: "scatter", data: points, itemStyle: { color: COLORS.front } }, { type: "line", data: [[low, low], [high, high]], symbol: "none", silent: true, lineStyle: { type: "dashed", color: COLORS.complete } }],
  });
}

function byMetric(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.metric, [...(found.get(row.metric) || []), row]);
  return found;
}

function buildTrust() {
  const { trust, diagnoses } = page.data, node = document.getElementById("diagnoses");
  if (!diagnoses.length) node.append(element("p", {}, "Nothing in the records speaks against this run: sizes, scores, bounds, objectives, teacher, readings and the population were looked at."));
  for (const one of diagnoses) node.append(element("div", { class: "card alarm" }, element("h3", {}, one.name), element("p", {}, one.text), element("p", { class: "note" }, "Evidence: " + one.evidence + "."), element("p", {}, "Try: " + one.advice)));
  for (const [metric, rows] of byMetric(trust.tested)) pairs("trust", `${metric}: quick against full training`, `${rows.length} networks; on the line, both agree`, rows.map((row) => ({ value: [row.quick, row.tested], id: row.id })), "quick, validation", "full, test", metric);
  for (const [metric, rows] of byMetric(trust.confirmed)) pairs("trust", `${metric}: first against confirmed`, `${rows.length} networks were measured again, side by side`, rows.map((row) => ({ value: [row.first, row.confirmed], id: row.id })), "first", "confirmed", metric);
  for (const [metric, rows] of byMetric(trust.spread)) panel("trust", `${metric}: spread over seeds`, `${rows.length} networks were trained under several seeds`, { grid: { left: 75, right: 20, top: 15, bottom: 50 }, xAxis: { type: "value", scale: true, name: metric, nameLocation: "middle", nameGap: 30 }, yAxis: { type: "value", name: "standard deviation", nameLocation: "middle", nameGap: 58 }, series: [{ type: "scatter", data: rows.map((row) => [row.value, row.spread]), itemStyle: { color: COLORS.front } }] });
  if (trust.correlation.names) {
    const { names, rho, n } = trust.correlation;
    heatmap("trust", "Metrics that go together", `Spearman's rho over ${n} complete candidates: 1 same order, -1 opposite`, names, names, rho, -1, 1, ["#c2540a", "#f7f7f7", "#1f5fbf"], true);
  }
}

function heatmap(section, title, note, columns, rows, values, low, high, colors, labels) {
  const data = rows.flatMap((_, y) => columns.map((_, x) => [x, y, values[y][x]]));
  panel(section, title, note, {
    grid: { left: 130, right: 15, top: 10, bottom: 70 }, xAxis: { type: "category", data: columns.map(String), axisLabel: { rotate: columns.length > 4 ? 45 : 0, hideOverlap: true } }, yAxis: { type: "category", data: rows.map(String), axisLabel: { width: 115, overflow: "truncate" } },
    visualMap: { min: low, max: high, show: false, inRange: { color: colors } },
    tooltip: { renderMode: "richText", confine: true, formatter: (given) => `${rows[given.value[1]]} / ${columns[given.value[0]]}: ${given.value[2]}` },
    series: [{ type: "heatmap", data, label: { show: Boolean(labels) && columns.length <= 8, color: "#1f2933" }, progressive: 0 }],
  }, rows.length > 15 ? "tall" : "");
}

function lines(section, title, note, xName, yName, series, percent) {
  const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
  panel(section, title, note, {
    grid: { left: 70, right: 25, top: series.length > 1 ? 35 : 15, bottom: 50 }, legend: { top: 0, show: series.length > 1 },
    tooltip: { trigger: "axis", renderMode: "richText", confine: true, valueFormatter: (value) => percent ? (100 * value).toFixed(1) + " %" : String(Number(Number(value).toPrecision(4))) },
    xAxis: { type: "value", name: xName, nameLocation: "middle", nameGap: 30, minInterval: ["batch", "candidates that ended"].includes(xName) ? 1 : 0 }, yAxis: { type: "value", scale: !percent, name: yName, nameLocation: "middle", nameGap: 52, axisLabel: { formatter: (value) => percent ? Math.round(100 * value) + " %" : short.format(value) } },
    series: series.map((one) => ({ type: "line", symbol: "none", ...one })),
  });
}

// Bars of seconds by name, each with a share in percent; nothing where there is no name.
function bars(title, note, seconds, share) {
  const sorted = Object.entries(seconds).sort((a, b) => a[1] - b[1]);
  if (!sorted.length) return;
  const total = sorted.reduce((sum, one) => sum + one[1], 0);
  panel("progress", title, note(total), { grid: { left: 130, right: 60, top: 5, bottom: 30 }, xAxis: { type: "value", axisLabel: { formatter: "{value} s", hideOverlap: true } }, yAxis: { type: "category", data: sorted.map((one) => one[0]), axisLabel: { width: 115, overflow: "truncate" } }, series: [{ type: "bar", data: sorted.map((one) => one[1]), itemStyle: { color: COLORS.front }, label: { show: true, position: "right", formatter: (given) => Math.round(100 * share(given.value, total)) + " %" } }] });
}

function buildProgress() {
  const { progress, failures } = page.data;
  if (progress.hypervolume.length > 1) {
    const n = progress.hypervolume.length, last = Math.max(...progress.ended_s);
    const unit = last > 7200 ? ["hours", 3600] : last > 120 ? ["minutes", 60] : ["seconds", 1];
    lines("progress", "Hypervolume over evaluations", "What the front dominates, as a share of the last", "candidates that ended", "share of the last", [{ data: progress.hypervolume.map((value, k) => [k + 1, value]), step: "end", lineStyle: { color: COLORS.front } }], true);
    lines("progress", "Hypervolume over time", `${n} candidates in ${(last / unit[1]).toFixed(1)} ${unit[0]}: ${(3600 * n / Math.max(last, 1)).toPrecision(3)} an hour`, unit[0], "share of the last", [{ data: progress.ended_s.map((at, k) => [at / unit[1], progress.hypervolume[k]]), step: "end", lineStyle: { color: COLORS.front } }], true);
  }
  if (progress.batches.length > 2) {
    for (const objective of page.data.objectives) {
      const known = progress.batches.filter((batch) => batch.values[objective.metric]);
      if (known.length > 2) lines("progress", `${objective.metric} by batch`, "Lowest, median and highest of the candidates asked for together", "batch", objective.metric, ["lowest", "median", "highest"].map((name, k) => ({ name, data: known.map((batch) => [batch.number, batch.values[objective.metric][k]]) })), false);
    }
  }
  bars("Where the candidates' time went", (total) => `${total.toPrecision(3)} s in all; waiting: until the first reading, for others of the batch too`, progress.seconds, (seconds, total) => seconds / total);
  bars("How busy everybody was", () => `Seconds, as a share of the ${(60 * progress.hours).toPrecision(3)} minutes of the search; a node of a cluster may have several workers. Controller: choosing candidates`, progress.busy_s, (seconds) => seconds / (3600 * progress.hours));
  const node = document.getElementById("failures");
  if (failures.length) node.append(element("h3", {}, "Failures by cause"));
  for (const one of failures) node.append(element("details", { class: "card" }, element("summary", {}, `${one.candidates.length}: ${one.cause}`), element("p", { class: "note" }, one.candidates.slice(0, 20).join(", ")), element("pre", {}, one.traceback)));
}

function buildDiversity() {
  const { diversity } = page.data;
  if (diversity.distances.length > 1) lines("diversity", "Distance within a batch", "Mean share of genes in which two candidates of a batch differ", "batch", "share of genes", [{ data: diversity.distances, symbol: "circle", lineStyle: { color: COLORS.front } }], true);
  if (diversity.distinct_sizes.length > 1) lines("diversity", "Distinct parameter counts", "How many different sizes were asked for; flat where a space comes in layers", "candidates", "distinct sizes", [{ data: diversity.distinct_sizes.map((value, k) => [k + 1, value]), lineStyle: { color: COLORS.front } }], false);
  if (diversity.genes.rows && diversity.genes.batches.length > 1) heatmap("diversity", "Gene values by batch", "Share of a batch with this value: those that changed most", diversity.genes.batches, diversity.genes.rows, diversity.genes.shares, 0, 1, isDark() ? ["#1e252c", "#7db1ff"] : ["#ffffff", "#1f5fbf"], false);
  if (!document.getElementById("diversity").children.length) document.getElementById("diversity").append(element("p", { class: "note" }, "Too few candidates to say."));
}
