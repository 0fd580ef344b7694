// The page of several runs: medians with quartiles, fronts over each other, and the pairs of groups in words.

const GROUP_COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7a00", "#6b6b6b"];

function colorOf(k) {
  return GROUP_COLORS[k % GROUP_COLORS.length];
}

function drawVolumes(groups) {
  const series = groups.flatMap((group, k) => {
    const [low, middle, high] = group.quartiles;
    const band = { type: "line", symbol: "none", silent: true, stack: "band " + k, lineStyle: { opacity: 0 }, tooltip: { show: false }, name: group.name };
    return [
      { ...band, data: low },
      { ...band, data: high.map((value, n) => value - low[n]), areaStyle: { color: colorOf(k), opacity: 0.18 } },
      { type: "line", symbol: "none", name: group.name, data: middle, lineStyle: { color: colorOf(k), width: 2 }, itemStyle: { color: colorOf(k) } },
    ];
  });
  chartIn(document.getElementById("volume")).setOption(base({
    grid: { left: 70, right: 25, top: 40, bottom: 50 }, legend: { top: 0, data: groups.map((group, k) => ({ name: group.name, itemStyle: { color: colorOf(k) } })) },
    xAxis: { type: "category", boundaryGap: false, data: groups[0].quartiles[1].map((_, n) => n + 1), name: "evaluations", nameLocation: "middle", nameGap: 30 }, yAxis: { type: "value", scale: true, axisLabel: { formatter: (value) => (100 * value).toFixed(0) + " %" } }, series,
  }));
}

function drawFronts(groups, objectives) {
  for (let a = 0; a < objectives.length; a++) {
    for (let b = a + 1; b < objectives.length; b++) {
      const axis = (k, gap) => ({ type: "value", scale: true, name: objectives[k].metric + (objectives[k].direction === "maximize" ? " ↑" : " ↓"), nameLocation: "middle", nameGap: gap, axisLabel: { hideOverlap: true } });
      const chart = element("div", { class: "chart", role: "img", "aria-label": `Fronts in ${objectives[b].metric} and ${objectives[a].metric}` });
      document.getElementById("fronts").append(element("div", { class: "card" }, chart));
      chartIn(chart).setOption(base({
        grid: { left: 75, right: 20, top: 35, bottom: 50 }, legend: { top: 0 }, xAxis: axis(b, 30), yAxis: axis(a, 55),
        series: groups.map((group, k) => ({ type: "scatter", name: group.name, symbolSize: 8, itemStyle: { color: colorOf(k), opacity: 0.8 }, data: group.front.map((point) => [point[b], point[a]]) })),
      }));
    }
  }
}

async function startComparison() {
  await readData();
  const { groups, objectives, duels, reference_point: point } = page.data;
  document.getElementById("point").textContent = "One reference point for all: " + Object.entries(point).map(([metric, value]) => `${metric} ${Number(value.toPrecision(5))}`).join(", ");
  drawVolumes(groups);
  drawFronts(groups, objectives);
  const row = (tag, values) => element("tr", {}, ...values.map((value, k) => element(tag, { class: k ? "number" : "" }, String(value))));
  const last = (group, k) => group.quartiles[k][group.quartiles[k].length - 1].toFixed(4);
  document.getElementById("groups").append(
    element("thead", {}, row("th", ["group", "runs", "lower quartile", "median at the end", "upper quartile", "front"])),
    element("tbody", {}, ...groups.map((group) => row("td", [group.name, group.runs.length, last(group, 0), last(group, 1), last(group, 2), group.front.length]))));
  const share = (value) => Math.round(100 * value) + " %";
  for (const duel of duels) document.getElementById("duels").append(element("li", {}, `${duel.first} against ${duel.second}: dominates ${share(duel.dominated)} of its front (the other way ${share(duel.dominated_back)}), wins ${share(duel.wins)} of the pairs of runs: ${duel.verdict}.`));
  document.body.dataset.complete = "yes";
}

startComparison();
