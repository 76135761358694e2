// Success curves as one drawing with its legend.

const PLOT = { width: 620, height: 360, left: 46, right: 12, top: 12, bottom: 40 };
const COLOURS = 8; // .k0 to .k7 in the style sheet

const acrossPlot = (bar) => PLOT.left + bar * (PLOT.width - PLOT.left - PLOT.right);
const upPlot = (share) => PLOT.height - PLOT.bottom - share * (PLOT.height - PLOT.top - PLOT.bottom);

function plotGrid() {
  const parts = [];
  for (let step = 0; step <= 10; step += 2) {
    const x = acrossPlot(step / 10), y = upPlot(step / 10);
    parts.push(drawing("line", { class: "grid", x1: x, x2: x, y1: upPlot(0), y2: upPlot(1) }));
    parts.push(drawing("line", { class: "grid", x1: acrossPlot(0), x2: acrossPlot(1), y1: y, y2: y }));
    parts.push(drawing("text", { x, y: upPlot(0) + 16, "text-anchor": "middle" }, (step / 10).toFixed(1)));
    parts.push(drawing("text", { x: PLOT.left - 7, y: y + 4, "text-anchor": "end" }, String(step * 10)));
  }
  const middle = acrossPlot(0.5), bottom = PLOT.height - 5;
  parts.push(drawing("text", { x: middle, y: bottom, "text-anchor": "middle" }, "bar of cIoU"));
  const turn = `rotate(-90 11 ${upPlot(0.5)})`;
  parts.push(drawing("text", { x: 11, y: upPlot(0.5), "text-anchor": "middle", transform: turn }, "clips in %"));
  return parts;
}

// Maps are solid, baselines dashed; each group counts its colours on.
const lineClass = (curve, place) => `curve ${curve.group} k${place % COLOURS}`;

function drawCurves(holder, curves, bars) {
  if (!curves.length) {
    holder.replaceChildren(element("p", { class: "note" }, "No clip was scored."));
    return;
  }
  const lines = curves.map((curve, place) => {
    const points = curve.shares.map((share, n) => `${acrossPlot(bars[n]).toFixed(1)},${upPlot(share).toFixed(1)}`);
    return drawing("polyline", { class: lineClass(curve, place), points: points.join(" ") }, drawing("title", {}, curve.name));
  });
  const names = curves.map((curve) => curve.name).join(", ");
  const label = `Success curves of ${names}. The shares are in summary.json.`;
  const box = `0 0 ${PLOT.width} ${PLOT.height}`;
  const plot = drawing("svg", { class: "curves", viewBox: box, role: "img", "aria-label": label }, ...plotGrid(), ...lines);
  const entries = curves.map((curve, place) => {
    const swatch = drawing("line", { class: lineClass(curve, place), x1: 0, x2: 34, y1: 5, y2: 5 });
    return element("li", {}, drawing("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" }, swatch), curve.name);
  });
  holder.replaceChildren(plot, element("ul", { class: "legend" }, ...entries));
}
