// The clips of one report: filtered, sorted, a page at a time, painted only where they are seen.

const PAGE = 50;
const [ID, LABEL, SIZE, AREA, FLAGS, SCORES] = [0, 1, 2, 3, 4, 5]; // fields of a clip
const [CIOU, AREA_CIOU, OUTCOME] = [0, 1, 2]; // fields of a score
const EVERY = "every";

class Gallery {
  constructor(data) {
    this.data = data;
    this.frames = new Map(data.pictures.map(([id, width, height], place) => [id, { place, width, height }]));
    this.start = 0;
    this.fixed = null; // the slider's threshold; null is the protocol's own
    this.seen = new Set();
    this.rows = new Map();
    this.watch = new IntersectionObserver((entries) => this.noticed(entries), { rootMargin: "200px" });
    byId("with-pictures").checked = data.pictures.length > 0;
    for (const id of ["sort-map", "sort-direction", "filter-label", "filter-size", "filter-outcome", "with-pictures"]) {
      byId(id).addEventListener("change", () => this.list());
    }
    byId("search").addEventListener("input", () => this.list());
    for (const id of ["with-mask", "with-truth"]) byId(id).addEventListener("change", () => this.repaint());
    byId("threshold").addEventListener("input", () => this.setThreshold(Number(byId("threshold").value)));
    byId("threshold-rule").addEventListener("click", () => this.setThreshold(null));
    byId("previous").addEventListener("click", () => this.turn(-PAGE));
    byId("next").addEventListener("click", () => this.turn(PAGE));
  }

  show(report) {
    this.report = report;
    fillSelect(byId("sort-map"), report.kinds.map((kind) => [kind, kind]));
    const labels = [...new Set(report.clips.map((clip) => clip[LABEL]))].sort();
    const classes = labels.map((label) => [`= ${label}`, label || "(no class)"]);
    fillSelect(byId("filter-label"), [[EVERY, `every class (${labels.length})`], ...classes]);
    const sizes = [...new Set(report.clips.map((clip) => clip[SIZE]))];
    fillSelect(byId("filter-size"), [[EVERY, "every size"], ...sizes.map((size) => [size, size])]);
    this.setThreshold(this.fixed);
    this.list();
  }

  get kind() {
    return this.report.kinds.indexOf(byId("sort-map").value);
  }

  get mapKinds() {
    return this.data.mapKinds.filter((kind) => this.report.kinds.includes(kind));
  }

  // The filters but for that of the outcome, whose options say what each of them would leave.
  candidates() {
    const label = byId("filter-label").value, size = byId("filter-size").value;
    const text = byId("search").value.toLowerCase();
    const pictured = byId("with-pictures").checked;
    return this.report.clips.filter((clip) =>
      (label === EVERY || `= ${clip[LABEL]}` === label) &&
      (size === EVERY || clip[SIZE] === size) &&
      clip[ID].toLowerCase().includes(text) &&
      (!pictured || this.frames.has(clip[ID])));
  }

  list() {
    const kind = this.kind, all = this.candidates();
    const outcomes = this.data.outcomes.map((name, place) => {
      const count = all.filter((clip) => clip[SCORES][kind]?.[OUTCOME] === place).length;
      return [place, `${name} (${count})`];
    });
    fillSelect(byId("filter-outcome"), [[EVERY, `every outcome (${all.length})`], ...outcomes]);
    const outcome = byId("filter-outcome").value;
    this.chosen = all.filter((clip) => outcome === EVERY || clip[SCORES][kind]?.[OUTCOME] === Number(outcome));
    const direction = byId("sort-direction").value;
    const byName = (a, b) => (a[ID] < b[ID] ? -1 : a[ID] > b[ID] ? 1 : 0);
    const sign = direction === "down" ? -1 : 1;
    // Clips without a score for this map come last, whichever way.
    const score = (clip) => clip[SCORES][kind]?.[CIOU] ?? sign * Infinity;
    const order = (a, b) => (score(a) === score(b) ? 0 : sign * (score(a) - score(b)));
    this.chosen.sort((a, b) => (direction === "id" ? byName(a, b) : order(a, b) || byName(a, b)));
    this.start = 0;
    this.render();
  }

  turn(step) {
    this.start += step;
    this.render();
    byId("clips").scrollIntoView();
  }

  render() {
    const end = Math.min(this.start + PAGE, this.chosen.length);
    const range = this.chosen.length ? `${this.start + 1} to ${end} of ` : "";
    byId("count").textContent = `${range}${this.chosen.length} clips (${this.report.clips.length} scored)`;
    byId("previous").disabled = this.start === 0;
    byId("next").disabled = end === this.chosen.length;
    this.watch.disconnect();
    this.seen.clear();
    this.rows = new Map(this.chosen.slice(this.start, end).map((clip) => {
      const row = this.row(clip);
      return [row.node, row];
    }));
    byId("gallery").replaceChildren(...this.rows.keys());
    for (const [node, row] of this.rows) if (row.frame) this.watch.observe(node);
  }

  row(clip) {
    const score = clip[SCORES][this.kind];
    const verdict = element("span", score ? { class: `o${score[OUTCOME]}` } : {}, score ? this.data.outcomes[score[OUTCOME]] : "no score");
    const size = `${clip[SIZE]}, ${percent(clip[AREA])} % of the picture`;
    const texts = [clip[LABEL], size, ...clip[FLAGS]].filter(Boolean);
    const header = element("header", {}, element("h3", {}, clip[ID]), verdict, ...texts.map((text) => element("span", {}, text)));
    const frame = this.frames.get(clip[ID]);
    const columns = frame ? this.columns(clip, frame) : this.scoresOnly(clip);
    const strip = element("div", { class: "strip" }, ...columns.map((column) => column.node));
    strip.style.setProperty("--columns", Math.max(columns.length, 5));
    return { clip, frame, columns, node: element("li", { class: "clip" }, header, strip) };
  }

  columns(clip, { width, height }) {
    return [null, ...this.mapKinds].map((kind) => {
      const label = kind === null ? `Frame and truth of ${clip[ID]}` : `${kind} map of ${clip[ID]}: ${this.words(clip, kind)}`;
      const canvas = element("canvas", { role: "img", "aria-label": label, width, height });
      const name = element("span", {}, kind ?? "frame and truth");
      const caption = element("figcaption", {}, name, ...(kind === null ? [] : this.marks(clip, kind)));
      return { kind, canvas, node: element("figure", {}, canvas, caption) };
    });
  }

  scoresOnly(clip) {
    const columns = this.mapKinds.map((kind) => {
      const caption = element("figcaption", {}, element("span", {}, kind), ...this.marks(clip, kind));
      return { kind, node: element("figure", {}, caption) };
    });
    return [{ kind: null, node: element("span", { class: "absent" }, "no picture in this report") }, ...columns];
  }

  score(clip, kind) {
    return clip[SCORES][this.report.kinds.indexOf(kind)];
  }

  words(clip, kind) {
    const score = this.score(clip, kind);
    return score ? `cIoU ${percent(score[CIOU])} percent, ${this.data.outcomes[score[OUTCOME]]}` : "no score";
  }

  marks(clip, kind) {
    const score = this.score(clip, kind);
    if (!score) return [element("span", { class: "absent" }, "no score")];
    const outcome = element("span", { class: `o${score[OUTCOME]}` }, this.data.outcomes[score[OUTCOME]]);
    return [element("b", { title: `with the truth's area: ${percent(score[AREA_CIOU])}` }, percent(score[CIOU])), outcome];
  }

  setThreshold(fixed) {
    this.fixed = fixed;
    if (fixed === null) byId("threshold").value = 0.5;
    const text = fixed === null ? this.report.threshold : fixed.toFixed(2);
    byId("threshold-value").textContent = text;
    byId("threshold").setAttribute("aria-valuetext", fixed === null ? `the protocol's own: ${text}` : text);
    byId("threshold-rule").disabled = fixed === null;
    this.repaint();
  }

  repaint() {
    for (const row of this.seen) this.paint(row);
  }

  noticed(entries) {
    for (const entry of entries) {
      const row = this.rows.get(entry.target);
      if (!row) continue;
      if (entry.isIntersecting) {
        this.seen.add(row);
        this.paint(row);
      } else {
        this.seen.delete(row);
      }
    }
  }

  async paint(row) {
    row.picture ??= this.loadPicture(row.frame);
    const picture = await row.picture;
    if (!this.seen.has(row)) return;
    const view = {
      rule: this.report.threshold, comparison: this.report.comparison, fixed: this.fixed,
      mask: byId("with-mask").checked, truth: byId("with-truth").checked,
    };
    const heats = picture.heats.get(this.report.model);
    for (const { kind, canvas, node } of row.columns) {
      const heat = kind === null ? null : heats?.get(kind);
      if (!picture.image || heat === undefined) {
        canvas.replaceWith(element("div", { class: "absent" }, picture.image ? "no map" : "the picture cannot be shown"));
      } else {
        paint(canvas, picture, heat, view);
      }
      node.dataset.painted = view.fixed ?? "rule";
    }
  }

  async loadPicture({ place, width, height }) {
    const stored = readJson(`picture-${place}`);
    const heats = new Map(stored.heats.map(([model, maps]) =>
      [model, new Map(maps.map(([kind, heat]) => [kind, decodeHeat(heat)]))]));
    const [image, maskImage] = await Promise.all([
      loadImage(stored.frame).catch(() => null),
      stored.mask ? loadImage(stored.mask).catch(() => null) : null,
    ]);
    return { width, height, boxes: stored.boxes, heats, image, maskImage };
  }
}
