// Which charts there are: those of known keys in their order, then of all others.

const KNOWN = [
  ["loss", "Loss", [
    { key: "loss", title: "Training loss", unit: "nats per token", wide: true },
    { key: "eval_loss", title: "Evaluation loss", unit: "nats per token" },
    { key: "eval_bits_per_byte", title: "Evaluation", unit: "bits per byte" },
    { key: "eval_perplexity", title: "Evaluation perplexity" },
  ]],
  ["optimization", "Optimization", [
    { key: "lr", title: "Learning rate", with: ["lr_muon"] },
    { key: "grad_norm", title: "Gradient norm", unit: "before clipping" },
    { key: "update_norm", title: "Update norm" },
    { key: "param_norm", title: "Parameter norm" },
    { key: "updates_rejected", title: "Updates not applied" },
  ]],
  ["speed", "Speed", [
    { key: "tokens_per_sec", title: "Throughput", unit: "targets per second" },
    { key: "step_time_s", title: "Time of a step", unit: "seconds" },
    { key: "data_wait_share", title: "Waiting for data", unit: "share of the time", share: true },
    { key: "mfu", title: "Model FLOPs utilization", unit: "of the device's peak", share: true },
    { key: "fraction_of_matmul_bound", title: "Model FLOPs", unit: "of a large matrix product's rate", share: true },
    { key: "peak_memory_gb", title: "Memory", unit: "GiB", with: ["device_memory_gb"] },
    { key: "first_step_compile_time_s", title: "Compile time", unit: "seconds, at each start" },
  ]],
  ["data", "Data", [
    { key: "targets", title: "Targets by source", unit: "tokens of a step" },
    { key: "packing_utilization", title: "Packing", unit: "share of positions in use", share: true },
    { key: "docs_seen", title: "Documents begun" },
    { key: "epoch", title: "Epoch", unit: "passes over the corpus, from 0" },
    { key: "docs_skipped", title: "Documents left out" },
    { key: "docs_skipped_share", title: "Documents left out", unit: "share", share: true },
    { key: "docs_truncated", title: "Documents cut" },
    { key: "docs_repaired", title: "Documents repaired" },
    { key: "read_retries", title: "Reads repeated" },
  ]],
];

const family = (key) => key.split("/")[0];
const keysOf = () => [...new Set(runs.flatMap((run) => Object.keys(run.curves.series)))];

// A name for each key's line in its chart.
const lineName = (key) => (key.includes("/") ? key.slice(key.indexOf("/") + 1) : key);

function hue(place, count) {
  if (count <= 8) return () => color(place);
  const part = place / (count - 1), dark = matchMedia("(prefers-color-scheme: dark)").matches;
  // From violet over green to yellow, of even steps in lightness: the order of many lines.
  const stops = dark ? [[108, 92, 190], [60, 160, 165], [110, 206, 120], [240, 225, 90]]
    : [[68, 20, 110], [45, 110, 142], [40, 150, 100], [190, 150, 0]];
  const at = Math.min(part * 3, 2.999), low = Math.floor(at);
  const mixed = stops[low].map((v, i) => Math.round(v + (at - low) * (stops[low + 1][i] - v)));
  return () => `#${mixed.map((v) => v.toString(16).padStart(2, "0")).join("")}`;
}

// The charts of a spec: one, or one for each run where many lines of each would hide each other.
function chartsOf(spec, keys) {
  const having = (run) => keys.filter((key) => run.curves.series[key]);
  const those = runs.filter((run) => having(run).length);
  const single = runs.length === 1;
  if (!single && those.length > 1 && keys.length > 4) {
    return those.map((run) => new Chart({ ...spec, title: `${spec.title}, ${run.name}` },
      byLine(run, having(run))));
  }
  if (keys.length > 1 && those.length === 1) return [new Chart(spec, byLine(those[0], having(those[0])))];
  return [new Chart(spec, those.flatMap((run) => having(run).map((key) => ({
    run, key,
    label: keys.length > 1 ? `${run.name} ${lineName(key)}` : run.name,
    stroke: () => color(run.place),
    dash: keys.length > 1 ? DASHES[keys.indexOf(key) % 4] : run.place >= 8 ? DASHES[1] : [],
  }))))];
}

const byLine = (run, keys) => keys.map((key, place) => (
  { run, key, label: lineName(key), stroke: hue(place, keys.length), dash: [] }));

// The one value that all runs have of a key in all rows; undefined where they differ.
function constant(key) {
  const values = new Set();
  for (const run of runs) {
    const { mean, min, max } = run.curves.series[key] || { mean: [] };
    for (const column of [mean, min || [], max || []]) for (const v of column) {
      values.add(v);
      if (values.size > 1) return undefined;
    }
  }
  return [...values][0];
}

function chartSections() {
  const left = new Set(keysOf()), found = [];
  for (const [id, title, specs] of KNOWN) {
    const nodes = [], still = [];
    for (const spec of specs) {
      const wanted = [spec.key, ...(spec.with || [])];
      const keys = [...left].filter((key) => wanted.includes(key) || family(key) === spec.key);
      keys.forEach((key) => left.delete(key));
      if (!keys.length) continue;
      const moving = keys.filter((key) => key === "loss" || constant(key) === undefined);
      still.push(...keys.filter((key) => !moving.includes(key)));
      if (moving.length) nodes.push(...chartsOf(spec, moving).map((chart) => chart.node));
    }
    found.push(chartSection(id, title, nodes, still));
  }
  const others = new Map();
  for (const key of left) others.set(family(key), [...(others.get(family(key)) || []), key]);
  const nodes = [], still = [];
  for (const [key, keys] of others) {
    const moving = keys.filter((each) => constant(each) === undefined);
    still.push(...keys.filter((each) => !moving.includes(each)));
    if (moving.length) nodes.push(...chartsOf({ key, title: key }, moving).map((chart) => chart.node));
  }
  found.push(chartSection("more", "More", nodes, still));
  return found.filter(Boolean);
}

function chartSection(id, title, nodes, still) {
  if (!nodes.length && !still.length) return null;
  return section(id, title, el("div", { class: "charts" }, nodes),
    still.length > 0 && el("p", { class: "constants" }, "The same in all rows: ",
      still.map((key, place) => [place ? ", " : "", key, " ", el("b", {}, number(constant(key)))])));
}
