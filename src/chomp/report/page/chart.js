// One chart: lines over the chosen axis, marks of what happened, values under the cursor.

const charts = new Set();
const MARKS = { resume: "▸", rewind: "↩", branch: "◆", rejected: "×", diverged: "!", stall: "…", error: "✕" };
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
  86400, 172800, 432000, 864000, 1728000, 4320000, 8640000];
// Beyond four colours some look alike to the colour-blind: every four runs have dashes of their own.
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Where runs and axis are shown from and to, in all charts.
function reach() {
  if (view.zoom) return view.zoom;
  let least = Infinity, most = -Infinity;
  for (const run of visible()) {
    const values = along(run);
    if (!values.length) continue;
    least = Math.min(least, values[0]);
    most = Math.max(most, values[values.length - 1]);
  }
  if (least > most) return [0, 1];
  return most > least ? [least > most / 20 ? least : 0, most] : [least - 0.5, most + 0.5];
}

// An exponential moving average that isn't pulled to its beginning.
function smoothed(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

// The next number outwards of which one digit is enough: uPlot's logarithmic axis begins with such.
function rounded(value, outwards) {
  const power = Math.floor(Math.log10(value)), digit = outwards(Number((value / 10 ** power).toPrecision(12)));
  return Number(`${digit}e${power}`);
}

const alpha = (hex, part) => hex + Math.round(255 * part).toString(16).padStart(2, "0");

class Chart {
  // lines: [{run, key, label, stroke(), dash}]
  constructor(spec, lines) {
    this.spec = spec;
    this.lines = lines;
    this.value = spec.share ? share : number;
    this.readout = el("ul", { class: "readout" });
    this.where = el("span", { class: "where" });
    this.note = el("p", { class: "note", hidden: true });
    this.plot = el("div", { class: "plot", role: "img", "aria-label": this.described() }, this.note);
    this.node = el("figure", { class: `chart${spec.wide ? " wide" : ""}`, data: { key: spec.key } },
      el("figcaption", {},
        el("h3", {}, spec.title, spec.unit && el("small", {}, spec.unit)), this.where),
      this.readout, this.plot);
    this.seen = false;
    this.plot.addEventListener("mousemove", () => { Chart.under = this; }, true);
    charts.add(this);
    Chart.watcher.observe(this.node);
    Chart.sizes.observe(this.plot);
  }

  described() {
    const last = this.lines.map(({ run, key, label }) => {
      const found = run.facts.last[key];
      return found ? `${label}: ${this.value(found[1])} at step ${found[0]}` : label;
    });
    return `${this.spec.title} by ${AXES[view.axis].title.toLowerCase()}. Last: ${last.slice(0, 8).join("; ")}`;
  }

  drawn() {
    return this.lines.filter((line) => !view.hidden.has(line.run.name) && along(line.run).length);
  }

  // Tables for uPlot.join, and the options of their series.
  table() {
    const tables = [], options = [{}], bands = [];
    this.shownLines = [];
    for (const line of this.drawn()) {
      const { at, mean, min, max } = line.run.curves.series[line.key] || {};
      if (!at) continue;
      const values = along(line.run), x = at.map((place) => values[place]);
      const stroke = line.stroke(), columns = [x];
      const smooth = view.smoothing > 0 && mean.length > 10 && !this.spec.smooth;
      const points = { show: mean.length <= 60 && !line.dash?.length && this.lines.length <= 8, size: 5, fill: stroke };
      let band = null;
      const add = (column, option) => {
        columns.push(column);
        options.push({ spanGaps: true, ...option });
      };
      if (max) {
        const first = options.length;
        band = [first + 1, first];
        add(max, { stroke: "transparent", points: { show: false } });
        add(min, { stroke: "transparent", points: { show: false } });
        bands.push({ series: [first, first + 1], fill: alpha(stroke, 0.18) });
      } else if (smooth) {
        add(mean, { stroke: alpha(stroke, 0.25), width: 1, points: { show: false } });
      }
      this.shownLines.push({ ...line, column: options.length, band });
      add(smooth ? smoothed(mean, view.smoothing) : mean,
        { stroke, width: 1.75, dash: line.dash, points });
      tables.push(columns);
    }
    return { data: tables.length ? uPlot.join(tables) : [[]], options, bands };
  }

  draw() {
    if (!this.seen || !this.plot.clientWidth) return;
    this.u?.destroy();
    const { data, options, bands } = this.table();
    const positive = data.slice(1).every((column) => column.every((v) => v == null || v > 0));
    const grid = { stroke: css("--grid"), width: 1 };
    const axis = { stroke: css("--quiet"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const [least, most] = reach();
    this.u = new uPlot({
      width: this.plot.clientWidth,
      height: this.plot.clientHeight,
      legend: { show: false },
      scales: {
        x: { time: false, range: [least, most] },
        y: view.log && positive && data.length > 1
          ? { distr: 3, range: (u, low, high) => [rounded(low, Math.floor), rounded(high, Math.ceil)] } : {},
      },
      axes: [
        { ...axis, size: 28, gap: 4, space: 70, values: (u, ticks) => ticks.map(AXES[view.axis].tick),
          ...(view.axis === "time" && { incrs: [0.1, 0.2, 0.5, ...SECONDS] }) },
        { ...axis, size: 50, gap: 6, space: 36,
          values: (u, ticks) => ticks.map((v) => (v == null ? "" : this.tick(v))) },
      ],
      series: options,
      bands,
      cursor: {
        y: false,
        sync: { key: "chomp", setSeries: false },
        drag: { x: true, y: false, setScale: false },
        dataIdx: nearest,
        points: { size: 7, show: (u, series) => this.isLine(series) && marker(u, series) },
        bind: { dblclick: () => () => zoomTo(null) },
      },
      hooks: {
        draw: [(u) => this.drawMarks(u)],
        setCursor: [(u) => this.read(u)],
        setSelect: [(u) => {
          if (u.select.width > 4) {
            zoomTo([u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]);
          }
        }],
      },
    }, data, this.plot);
    this.read(this.u);
    requestAnimationFrame(() => this.fit());  // the values above it may have taken room since
  }

  fit() {
    const width = this.plot.clientWidth, height = this.plot.clientHeight;
    if (this.u && width && (this.u.width !== width || this.u.height !== height)) this.u.setSize({ width, height });
  }

  isLine(column) {
    return this.shownLines.some((line) => line.column === column);
  }

  tick(value) {
    if (this.spec.share) return `${Number((100 * value).toPrecision(4))}%`;
    const size = Math.abs(value);
    if (size >= 1e4) return SHORT.format(value);
    return size && size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(6)));
  }

  // The values under the cursor, or else the last ones.
  read(u) {
    const at = u.cursor.left >= 0 ? u.cursor.idx : null;
    this.where.textContent = at == null ? "last" : AXES[view.axis].text(u.data[0][at]);
    if (this.items?.length !== this.shownLines.length) {
      this.items = this.shownLines.map((line) => {
        const value = el("b", {});
        const swatch = el("i", { class: "swatch", "aria-hidden": "true" });
        swatch.style.background = line.stroke();
        if (line.dash?.length) swatch.style.clipPath = "inset(0 50% 0 0)";
        return { node: el("li", {}, swatch, line.label, value), value };
      });
      this.readout.replaceChildren(...this.items.map(({ node }) => node));
    }
    this.shownLines.forEach((line, place) => {
      const index = at == null ? null : u.cursor.idxs?.[line.column];
      let value = index == null ? null : u.data[line.column][index];
      if (at == null) value = line.run.facts.last[line.key]?.[1];
      const [low, high] = line.band && index != null ? line.band.map((column) => u.data[column][index]) : [];
      this.items[place].value.textContent = this.value(value)
        + (low < high ? ` (${this.value(low)} to ${this.value(high)})` : "");
    });
    this.readMarks(u);
  }

  marks() {
    return visible().filter((run) => this.lines.some((line) => line.run === run))
      .flatMap((run) => run.facts.marks.map((mark) => ({ ...mark, run, x: atStep(run, mark.step) })))
      .filter((mark) => mark.x != null);
  }

  drawMarks(u) {
    const { ctx, bbox } = u, ratio = devicePixelRatio, taken = new Map();
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top - 14 * ratio, bbox.width, bbox.height + 14 * ratio);
    ctx.clip();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    for (const mark of this.marks()) {
      const x = Math.round(u.valToPos(mark.x, "x", true));
      const spot = Math.round(x / (9 * ratio)), level = taken.get(spot) || 0;
      taken.set(spot, level + 1);
      if (level > 3) continue;
      const bad = ["diverged", "error", "rejected"].includes(mark.kind);
      ctx.strokeStyle = ctx.fillStyle = bad ? css("--bad") : color(mark.run.place);
      ctx.globalAlpha = 0.7;
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.globalAlpha = 1;
      ctx.fillText(MARKS[mark.kind] || "•", x + 6 * ratio, bbox.top + level * 12 * ratio);
    }
    ctx.restore();
  }

  readMarks(u) {
    const near = u.cursor.left < 0 || Chart.under !== this ? [] : this.marks()
      .filter((mark) => Math.abs(u.valToPos(mark.x, "x") - u.cursor.left) < 7).slice(0, 4);
    this.note.hidden = !near.length;
    this.note.replaceChildren(...near.map((mark) => el("span", {},
      `${MARKS[mark.kind] || "•"} ${runs.length > 1 ? `${mark.run.name}: ` : ""}${mark.kind} at step ${whole(mark.step)}: ${mark.text}`)));
  }

  forget() {
    this.u?.destroy();
    charts.delete(this);
    Chart.watcher.unobserve(this.node);
    Chart.sizes.unobserve(this.plot);
  }
}

// A chart is drawn when it comes near the window, and again when its size changes.
Chart.watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const chart = [...charts].find(({ node }) => node === entry.target);
    if (!chart || chart.seen === entry.isIntersecting) continue;
    chart.seen = entry.isIntersecting;
    if (chart.seen) chart.draw();
  }
}, { rootMargin: "600px" });
Chart.sizes = new ResizeObserver((entries) => {
  for (const entry of entries) [...charts].find(({ plot }) => plot === entry.target)?.fit();
});

const marker = (u, column) => {
  const point = el("div", { class: "point" });
  point.style.background = u.series[column].stroke(u, column);
  return point;
};

// The place of the value next to the cursor; none before a line begins and after it ends.
function nearest(u, column, at) {
  const values = u.data[column];
  if (column === 0 || values[at] != null) return at;
  let left = at, right = at;
  while (left >= 0 && values[left] == null) left--;
  while (right < values.length && values[right] == null) right++;
  if (left < 0 || right === values.length) return null;
  return u.data[0][at] - u.data[0][left] < u.data[0][right] - u.data[0][at] ? left : right;
}

function zoomTo(range) {
  view.zoom = range;
  document.getElementById("unzoom").hidden = !range;
  drawAll();
}

let due = 0;
function drawAll() {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(() => charts.forEach((chart) => chart.draw()));
}
