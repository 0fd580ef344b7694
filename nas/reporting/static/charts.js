// The front and the parallel coordinates: drawn by ECharts on a canvas, texts never as HTML.

const COLORS = { complete: "#8a94a0", infeasible: "#b9c1c9", pruned: "#c9a227", failed: "#d1495b", asked: "#b9c1c9", front: "#1f5fbf", reference: "#c2540a", chosen: "#d6278a" };
const STAR = "path://M50 0L61 35L98 35L68 57L79 91L50 70L21 91L32 57L2 35L39 35Z";
const MOST_LINES = 400;
const charts = [];

function isDark() {
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

function chartIn(node) {
  const chart = echarts.init(node, isDark() ? "dark" : null, { renderer: "canvas" });
  charts.push(chart);
  // A card narrows when others come to stand beside it.
  new ResizeObserver(() => { if (!chart.isDisposed() && (chart.getWidth() !== node.clientWidth || chart.getHeight() !== node.clientHeight)) chart.resize(); }).observe(node);
  return chart;
}

function base(extra) {
  return { backgroundColor: "transparent", animation: false, textStyle: { fontFamily: "system-ui, DejaVu Sans, sans-serif" }, tooltip: { renderMode: "richText", confine: true }, ...extra };
}

function axisOf(metric, extra = {}) {
  const objective = page.data.objectives.find((one) => one.metric === metric);
  const arrow = objective ? (objective.direction === "maximize" ? " ↑" : " ↓") : "";
  return { type: isLogarithmic(metric) ? "log" : "value", scale: true, name: metric + arrow, nameLocation: "middle", axisLabel: { formatter: (value) => written(metric, value), hideOverlap: true }, ...extra };
}

function pointText(i) {
  const c = page.data.candidates;
  const lines = [c.is_reference[i] ? c.description[i] : c.id[i] + (c.state[i] === "complete" ? "" : " (" + c.state[i] + ")")];
  for (const metric of objectiveNames()) {
    const value = valueOf(i, metric);
    if (value === null) continue;
    const spread = c.spread[metric] && c.spread[metric][i] !== null ? " ± " + c.spread[metric][i].toPrecision(2) : "";
    const rounds = c.rounds[c.id[i]] && c.rounds[c.id[i]][metric];
    lines.push(metric + " " + written(metric, value) + spread + (rounds ? " (" + written(metric, rounds[0]) + " .. " + written(metric, rounds[1]) + ")" : ""));
  }
  if (c.ties[c.id[i]]) lines.push("≈ tied within noise with " + c.ties[c.id[i]].join(", "));
  if (c.reason[i]) lines.push(c.reason[i].slice(0, 120));
  return lines.join("\n");
}

const frontChart = { chart: null, x: null, y: null, color: "" };

function drawFront() {
  const { x, y, color } = frontChart;
  const c = page.data.candidates;
  const faint = [], others = [], front = [], references = [];
  for (let i = 0; i < c.n; i++) {
    const px = valueOf(i, x), py = valueOf(i, y);
    if (px === null || py === null) continue;
    const value = [px, py, color ? valueOf(i, color) : 0, i];
    if (!page.visible[i]) faint.push(value);
    else if (c.is_reference[i]) references.push(value);
    else if (c.on_front[i]) front.push({ value, symbol: c.id[i] === c.knee ? "diamond" : c.ties[c.id[i]] ? "emptyCircle" : "circle" });
    else others.push(value);
  }
  const plain = { type: "scatter", emphasis: { disabled: true } };
  const option = base({
    grid: { left: 75, right: color ? 95 : 20, top: 40, bottom: 55 },
    legend: { top: 0, left: 0, data: ["candidates", "front", "references"] },
    xAxis: axisOf(x, { nameGap: 32 }),
    yAxis: axisOf(y, { nameGap: 58 }),
    toolbox: { right: 10, feature: { brush: { type: ["rect", "clear"], title: { rect: "brush", clear: "clear" } } } },
    brush: { xAxisIndex: 0, yAxisIndex: 0, throttleType: "debounce", throttleDelay: 120, outOfBrush: { colorAlpha: 1 } },
    tooltip: { renderMode: "richText", confine: true, formatter: (given) => Array.isArray(given.value) ? pointText(given.value[3]) : given.name || "" },
    series: [
      { ...plain, name: "filtered out", data: faint, symbolSize: 4, silent: true, itemStyle: { color: COLORS.asked, opacity: 0.15 } },
      { ...plain, name: "candidates", data: others, symbolSize: 6, itemStyle: { color: COLORS.complete, opacity: 0.6 } },
      { type: "line", name: "front line", data: stepsOf(x, y), step: "end", symbol: "none", silent: true, lineStyle: { color: COLORS.front, width: 1.5, opacity: 0.5 }, tooltip: { show: false } },
      { ...plain, name: "front", data: front, symbolSize: 12, itemStyle: { color: COLORS.front }, ...marksOf(x, y) },
      { ...plain, name: "references", data: references, symbol: STAR, symbolSize: 20, itemStyle: { color: COLORS.reference } },
    ],
  });
  if (color) {
    const values = c.metrics[color].filter((value) => value !== null);
    option.visualMap = { type: "continuous", dimension: 2, min: values.reduce((a, b) => Math.min(a, b)), max: values.reduce((a, b) => Math.max(a, b)), seriesIndex: [1, 3, 4], right: 0, top: "middle", itemHeight: 100, text: [color, ""], formatter: (value) => written(color, value), inRange: { color: ["#4b57d1", "#1f9aa8", "#3fae5a", "#e0a100"] } };
  }
  frontChart.chart.setOption(option, { notMerge: true });
  drawRings();
}

// Rings around what is chosen and pinned lie over the chart: thousands of points need not be drawn anew for them.
function drawRings() {
  const rings = document.getElementById("rings");
  const c = page.data.candidates;
  const marked = new Set([...page.pinned, ...(page.chosen === null ? [] : [page.chosen])]);
  rings.replaceChildren(...[...marked].flatMap((i) => {
    const point = [valueOf(i, frontChart.x), valueOf(i, frontChart.y)];
    if (point.includes(null)) return [];
    const [left, top] = frontChart.chart.convertToPixel({ gridIndex: 0 }, point);
    const ring = element("span", { class: i === page.chosen ? "ring chosen" : "ring", title: c.id[i] });
    ring.style.left = left + "px";
    ring.style.top = top + "px";
    return [ring];
  }));
}

function stepsOf(x, y) {
  const signs = [x, y].map((metric) => (page.data.objectives.find((one) => one.metric === metric) || {}).direction === "maximize" ? -1 : 1);
  const c = page.data.candidates;
  const points = [];
  for (let i = 0; i < c.n; i++) if (c.on_front[i]) points.push([valueOf(i, x), valueOf(i, y)]);
  points.sort((a, b) => signs[0] * (a[0] - b[0]) || signs[1] * (a[1] - b[1]));
  const kept = [];
  for (const point of points) if (!kept.length || signs[1] * (point[1] - kept[kept.length - 1][1]) < 0) kept.push(point);
  return signs[0] > 0 ? kept : kept.reverse();
}

function marksOf(x, y) {
  const lines = [], areas = [];
  const teacher = page.data.teacher;
  for (const [axis, metric] of [["xAxis", x], ["yAxis", y]]) {
    if (teacher && teacher.scores && metric in teacher.scores) lines.push({ [axis]: teacher.scores[metric], name: "teacher", label: { formatter: "teacher", position: "insideEndTop" } });
    for (const bound of page.data.constraints.filter((one) => one.metric === metric)) {
      if (bound.max !== null) areas.push([{ [axis]: bound.max }, { [axis]: "max" }]);
      if (bound.min !== null) areas.push([{ [axis]: "min" }, { [axis]: bound.min }]);
    }
  }
  return {
    markLine: { silent: true, symbol: "none", data: lines, lineStyle: { color: COLORS.reference, type: "dashed" } },
    markArea: { silent: true, data: areas, itemStyle: { color: "rgba(180,35,24,0.12)" } },
  };
}

function buildFront() {
  const metrics = metricNames(), names = objectiveNames();
  frontChart.y = names[0] || metrics[0];
  frontChart.x = names[1] || metrics.find((metric) => metric !== frontChart.y) || frontChart.y;
  frontChart.color = names[2] || "";
  const pick = (label, key, choices) => element("label", {}, label, element("select", { id: "axis-" + key, onchange: (event) => { frontChart[key] = event.target.value; drawFront(); } },
    ...choices.map((metric) => element("option", { value: metric, selected: metric === frontChart[key] }, metric || "state"))));
  document.getElementById("axes").append(
    pick("across", "x", metrics), pick("up", "y", metrics), pick("colour", "color", ["", ...metrics]),
    element("label", { class: "inline" }, element("input", { type: "checkbox", id: "only-front", onchange: (event) => { page.onlyFront = event.target.checked; updateVisible(); } }), "front alone"));
  frontChart.chart = chartIn(document.getElementById("front"));
  frontChart.chart.on("click", (given) => { if (given.seriesType === "scatter" && Array.isArray(given.value)) choose(given.value[3]); });
  frontChart.chart.on("brushEnd", (given) => {
    const area = given.areas[0];
    if (area && area.coordRange) setFilters({ [frontChart.x]: area.coordRange[0], [frontChart.y]: area.coordRange[1] });
  });
  frontChart.chart.on("brush", (given) => { if (given.command === "clear" || (given.areas && !given.areas.length)) setFilters({ [frontChart.x]: null, [frontChart.y]: null }); });
  document.getElementById("front-note").textContent = "Large: the front (diamond: its knee; hollow: ahead of another member only within noise). Stars: references. Shaded: outside a bound. The square in the corner brushes.";
}

let parallelChart = null;
let isSettingParallel = false;

function drawParallel() {
  const c = page.data.candidates;
  const metrics = objectiveNames().length > 1 ? objectiveNames() : metricNames().slice(0, 6);
  const shown = [];
  for (let i = 0; i < c.n; i++) if (page.visible[i] && metrics.every((metric) => valueOf(i, metric) !== null)) shown.push(i);
  const isFirst = (i) => c.on_front[i] || c.is_reference[i] || i === page.chosen || page.pinned.has(i);
  const first = shown.filter(isFirst);
  const rest = shown.filter((i) => !isFirst(i));
  const step = Math.max(1, Math.ceil(rest.length / MOST_LINES));
  const drawn = [...rest.filter((_, k) => k % step === 0), ...first];
  document.getElementById("parallel-note").textContent = drawn.length < shown.length ? `${drawn.length} of ${shown.length} candidates are drawn here: the front and every ${step}. other one.` : `${shown.length} candidates. Drag along an axis to filter.`;
  parallelChart.metrics = metrics;
  isSettingParallel = true;
  parallelChart.setOption(base({
    parallel: { left: 60, right: 70, top: 40, bottom: 20, parallelAxisDefault: { nameLocation: "end", nameGap: 12 } },
    parallelAxis: metrics.map((metric, k) => ({ dim: k, ...axisOf(metric), nameLocation: "end" })),
    series: [{ type: "parallel", lineStyle: { width: 1 }, inactiveOpacity: 0.03, activeOpacity: 0.9, data: drawn.map((i) => ({ value: metrics.map((metric) => valueOf(i, metric)), i, lineStyle: { color: i === page.chosen ? COLORS.chosen : c.is_reference[i] ? COLORS.reference : c.on_front[i] ? COLORS.front : COLORS.complete, width: i === page.chosen ? 3 : c.on_front[i] ? 1.6 : 0.7, opacity: c.on_front[i] || c.is_reference[i] || i === page.chosen ? 0.9 : 0.25 } })) }],
  }), { replaceMerge: ["series"] });
  isSettingParallel = false;
}

function buildParallel() {
  parallelChart = chartIn(document.getElementById("parallel"));
  let timer = null;
  parallelChart.on("axisareaselected", () => {
    if (isSettingParallel) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const changes = {};
      parallelChart.getModel().eachComponent("parallelAxis", (axis, k) => {
        const ranges = axis.activeIntervals;
        changes[parallelChart.metrics[k]] = ranges.length ? [Math.min(...ranges.map((one) => one[0])), Math.max(...ranges.map((one) => one[1]))] : null;
      });
      setFilters(changes);
    }, 100);
  });
  parallelChart.on("click", (given) => { if (given.data && given.data.i !== undefined) choose(given.data.i); });
}
