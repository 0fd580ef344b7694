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

async function start() {
  await readData();
  buildHeader();
  if (page.data.candidates.n && metricNames().length) {
    buildFront();
    buildTable();
    drawFront();
    buildParallelAnew();
    drawTable();
    let waiting = false;
    page.listeners.push((what) => {
      if (what === "visible" || what === "pinned") drawTable();
      else if (what === "chosen") { for (const row of document.querySelectorAll("#table tr[data-i]")) { const is = Number(row.dataset.i) === page.chosen; row.classList.toggle("chosen", is); row.setAttribute("aria-selected", is ? "true" : "false"); } drawDetail(); }
      if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; drawFront(); drawParallel(); }); }
    });
    const wanted = page.data.candidates.index.get(decodeURIComponent(location.hash.slice(1))) ?? page.data.candidates.index.get(page.data.candidates.knee);
    if (wanted !== undefined) choose(wanted);
  } else {
    document.getElementById("front").replaceWith(element("p", {}, "No candidate has been measured yet."));
  }
  buildTrust();
  buildProgress();
  buildDiversity();
  document.body.dataset.ready = "yes";
  if (page.data.refresh_s) setTimeout(() => { location.hash = page.chosen === null ? "" : page.data.candidates.id[page.chosen]; location.reload(); }, 1000 * page.data.refresh_s);
}

window.addEventListener("resize", () => charts.forEach((chart) => chart.resize()));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
start();
