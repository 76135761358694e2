// Everything that depends on the chosen report, and the choice itself.

const data = readJson("data");
const gallery = data.reports.length ? new Gallery(data) : null;

const groupOf = (report) => JSON.stringify([report.testset, report.model, report.hash]);

function nameOf(report, several) {
  const name = report.model || "baselines only";
  const hash = report.hash ? ` (${report.hash.slice(0, 12)})` : "";
  return several ? `${report.testset}: ${name}${hash}` : `${name}${hash}`;
}

function offerModels() {
  const several = new Set(data.reports.map((report) => report.testset)).size > 1;
  const groups = new Map(data.reports.map((report) => [groupOf(report), nameOf(report, several)]));
  fillSelect(byId("shown-model"), [...groups]);
}

// The protocols of the chosen model; the one that was shown stays if the model has it.
function offerProtocols() {
  const before = data.reports[Number(byId("shown-protocol").value)]?.protocol;
  const offered = [...data.reports.entries()].filter(([, report]) => groupOf(report) === byId("shown-model").value);
  fillSelect(byId("shown-protocol"), offered.map(([place, report]) => [place, report.protocol]));
  const same = offered.find(([, report]) => report.protocol === before) ?? offered[0];
  byId("shown-protocol").value = same[0];
}

function showMissing(missing) {
  if (!missing.length) {
    byId("missing-list").replaceChildren(element("p", {}, "None: every expected clip was scored."));
    return;
  }
  const reasons = new Map();
  for (const [id, reason] of missing) reasons.set(reason, [...(reasons.get(reason) ?? []), id]);
  const groups = [...reasons].map(([reason, ids]) => {
    const summary = element("summary", {}, `${reason}: ${ids.length}`);
    const list = element("ul", {}, ...ids.map((id) => element("li", {}, id)));
    const details = element("details", {}, summary, list);
    details.open = ids.length <= 10;
    return details;
  });
  byId("missing-list").replaceChildren(...groups);
}

function showReport() {
  const report = data.reports[Number(byId("shown-protocol").value)];
  document.title = `avloc report: ${report.testset}`;
  byId("title").textContent = report.testset;
  fillList(byId("facts-list"), report.facts);
  fillList(byId("rule-list"), report.rule);
  byId("card").hidden = !report.card.length;
  fillList(byId("card-list"), report.card);
  byId("not-run").replaceChildren(...report.notRun.map(([map, reason]) => element("li", {}, `${map} was not run: ${reason}`)));
  byId("tables").replaceChildren(...report.tables.map(tableOf));
  drawCurves(byId("curves-plot"), report.curves, data.bars);
  showMissing(report.missing);
  gallery.show(report);
}

fillList(byId("about-list"), data.about);
byId("overview").replaceChildren(...data.overview.map(tableOf));
if (data.reports.length) {
  byId("choice").hidden = data.reports.length === 1;
  offerModels();
  offerProtocols();
  showReport();
  byId("shown-model").addEventListener("change", () => {
    offerProtocols();
    showReport();
  });
  byId("shown-protocol").addEventListener("change", showReport);
}
