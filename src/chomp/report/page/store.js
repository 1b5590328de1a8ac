// The runs that the page shows, and how the reader wants to see them.

const DATA = JSON.parse(document.getElementById("run-data").textContent);
const AXES = {
  step: { title: "Step", text: (v) => `step ${whole(v)}`, tick: number },
  tokens: { title: "Tokens", text: (v) => `${number(v)} tokens`, tick: number },
  time: { title: "Time", text: (v) => `${duration(v)} of steps`, tick: duration },
  flops: { title: "FLOPs", text: (v) => `${v.toExponential(3)} FLOPs`, tick: (v) => (v ? v.toExponential(1).replace("e+", "e") : "0") },
};

const view = { axis: "step", smoothing: 0, log: false, zoom: null, hidden: new Set() };
const runs = DATA.runs.map((run, place) => ({ ...run, place, name: run.facts.name }));
const visible = () => runs.filter((run) => !view.hidden.has(run.name));

const color = (place) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--line-${place % 8}`).trim();
const swatch = (place) => el("i", { class: `swatch line-${place % 8}`, "aria-hidden": "true" });

// Values of the chosen axis at the points of a run.
const along = (run) => run.curves.axes[view.axis] || [];

// The chosen axis at a step of a run, between its points in proportion.
function atStep(run, step) {
  const steps = run.curves.axes.step, values = along(run);
  if (!values.length) return null;
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  if (steps[high] <= step) return values[high];
  const before = high ? [steps[high - 1], values[high - 1]] : [0, 0];
  const part = (step - before[0]) / (steps[high] - before[0]);
  return before[1] + part * (values[high] - before[1]);
}

// Add the curves of newer rows to those that are there.
function append(curves, more) {
  const offset = curves.axes.step.length;
  for (const [name, values] of Object.entries(more.axes)) {
    if (values) curves.axes[name] = (curves.axes[name] || []).concat(values);
  }
  for (const [key, series] of Object.entries(more.series)) {
    const old = curves.series[key] || { at: [], mean: [] };
    const wide = old.min || series.min;
    curves.series[key] = {
      at: old.at.concat(series.at.map((at) => at + offset)),
      mean: old.mean.concat(series.mean),
      ...(wide && {
        min: (old.min || old.mean).concat(series.min || series.mean),
        max: (old.max || old.mean).concat(series.max || series.mean),
      }),
    };
  }
  curves.rows = more.rows;
}
