// The one chart that needs a script: latency over time. Its numbers come from the server as they are.
(() => {
  const box = document.getElementById("chart");
  if (!box || !window.uPlot) return;
  let plot = null, drawn = "", numbers = JSON.parse(box.dataset.chart);

  const colour = (name) => {
    const probe = document.createElement("i");
    probe.className = `ink-${name}`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const columns = () => [numbers.t, numbers.new, numbers.old, ...(numbers.limit ? [numbers.t.map(() => numbers.limit)] : [])];

  function draw() {
    const none = numbers.t.length < 2;
    box.querySelector(".none").hidden = !none;
    plot?.destroy();
    plot = null;
    if (none) return;
    const axis = { stroke: colour("text-2"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px Inter", gap: 6 };
    const line = (name, width) => ({ stroke: colour(name), width, points: { show: false }, spanGaps: true });
    drawn = String(numbers.limit);
    plot = new uPlot({
      width: box.clientWidth - 20, height: Math.max(200, box.clientHeight - 16), legend: { show: false },
      cursor: { points: { size: 6 } },
      scales: { y: { range: (_, low, high) => [0, (high || 1) * 1.12] } },
      axes: [
        { ...axis, values: (_, many) => many.map((t) => new Date(t * 1e3).toTimeString().slice(0, 8)), space: 66, size: 28 },
        { ...axis, values: (_, many) => many.map((x) => `${x} ms`), size: 58 },
      ],
      series: [{}, line("can", 2), line("text-3", 1.5), ...(numbers.limit ? [{ ...line("crit", 1.2), dash: [5, 5] }] : [])],
    }, columns(), box);
  }

  document.getElementById("stream").addEventListener("chart", (event) => {
    numbers = JSON.parse(event.detail.data);
    if (plot && drawn === String(numbers.limit) && numbers.t.length > 1) plot.setData(columns());
    else draw();
  });
  let soon = 0;
  addEventListener("resize", () => { clearTimeout(soon); soon = setTimeout(draw, 100); });
  addEventListener("flotilla:theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.fonts.ready.then(draw);
})();
