// Builds the page, and redraws what a change touches.

function buildHeader() {
  const c = page.data.candidates, d = page.data;
  document.getElementById("name").textContent = d.name;
  document.getElementById("state").textContent = `${d.state}; ${d.objectives.map((one) => one.metric + (one.direction === "maximize" ? " ↑" : " ↓")).join(", ")}; ${c.on_front.filter(Boolean).length} of ${c.n} networks on the front`;
  document.getElementById("summary").append(...d.summary.map((line) => element("li", {}, line)));
}

function buildParallelAnew() {
  if (parallelChart) { charts.splice(charts.indexOf(parallelChart), 1); parallelChart.dispose(); }
  buildParallel();
  drawParallel();
}

const later = {};

function soon(name, draw, delay) {
  clearTimeout(later[name]);
  later[name] = setTimeout(draw, delay);
}

// The table answers at once, the chart in the next frame, the parallel coordinates when nothing follows.
function redraw(what) {
  if (what === "visible") {
    drawTable();
    soon("front", drawFront, 0);
    soon("parallel", drawParallel, 250);
    return;
  }
  if (what === "pinned") drawTable();
  else markChosenRow();
  drawRings();
  if (what === "chosen") drawDetail();
  soon("parallel", drawParallel, 400);
}

function markChosenRow() {
  for (const row of document.querySelectorAll("#table tr[data-i]")) {
    const is = Number(row.dataset.i) === page.chosen;
    row.classList.toggle("chosen", is);
    row.setAttribute("aria-selected", is ? "true" : "false");
  }
}

async function start() {
  await readData();
  buildHeader();
  if (page.data.candidates.n && metricNames().length) {
    buildFront();
    buildTable();
    drawFront();
    buildParallelAnew();
    drawTable();
    page.listeners.push(redraw);
    const wanted = page.data.candidates.index.get(decodeURIComponent(location.hash.slice(1))) ?? page.data.candidates.index.get(page.data.candidates.knee);
    if (wanted !== undefined) choose(wanted);
  } else {
    document.getElementById("front").replaceWith(element("p", {}, "No candidate has been measured yet."));
  }
  document.body.dataset.ready = "yes";
  for (const build of [buildTrust, buildProgress, buildDiversity]) {
    await new Promise((done) => setTimeout(done));
    build();
  }
  document.body.dataset.complete = "yes";
  if (page.data.refresh_s) setTimeout(() => { location.hash = page.chosen === null ? "" : page.data.candidates.id[page.chosen]; location.reload(); }, 1000 * page.data.refresh_s);
}

window.addEventListener("resize", () => { charts.forEach((chart) => chart.resize()); if (frontChart.chart) drawRings(); });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
start();
