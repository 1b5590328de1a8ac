// Which charts there are: those of known keys in their order, then of all others.
// `by` names the lines of a family `KEY/NAME`; what is `smooth` by itself is never smoothed.

const KNOWN = [
  ["loss", "Loss", [
    { key: "loss", title: "Training loss", unit: "nats per token", wide: true },
    { key: "eval_loss", smooth: true, title: "Evaluation loss", unit: "nats per token", by: "set" },
    { key: "eval_bits_per_byte", smooth: true, title: "Bits per byte", unit: "of the evaluation", by: "set" },
    { key: "eval_perplexity", smooth: true, title: "Evaluation perplexity", by: "set" },
    { key: "ema_eval_loss", smooth: true, title: "Evaluation loss of the average", unit: "nats per token", by: "set" },
    { key: "ema_eval_bits_per_byte", smooth: true, title: "Bits per byte of the average", unit: "of the evaluation", by: "set" },
    { key: "ema_eval_perplexity", smooth: true, title: "Evaluation perplexity of the average", by: "set" },
    { key: "eval_targets", title: "Targets of the evaluation" },
  ]],
  ["optimization", "Optimization", [
    { key: "lr", smooth: true, title: "Learning rate" },
    { key: "lr_muon", smooth: true, title: "Learning rate of Muon" },
    { key: "grad_norm", title: "Gradient norm", unit: "before clipping", by: "layer" },
    { key: "update_norm", title: "Update norm", by: "layer" },
    { key: "param_norm", title: "Parameter norm", by: "layer" },
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
    { key: "targets", title: "Targets", unit: "since the row before", by: "source" },
    { key: "packing_utilization", title: "Packing", unit: "share of positions in use", share: true },
    { key: "docs_seen", title: "Documents begun" },
    { key: "epoch", title: "Epoch", unit: "passes over the corpus, from 0", by: "source" },
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
  // Without runs to tell apart, colours tell the lines apart.
  if ((those.length === 1 && keys.length > 1) || keys.length > 4) {
    return those.map((run) => new Chart(
      { ...spec, title: runs.length > 1 ? `${spec.title}, ${run.name}` : spec.title }, byLine(run, having(run))));
  }
  return [new Chart(spec, those.flatMap((run) => having(run).map((key) => ({
    run, key,
    label: keys.length > 1 ? `${run.name} ${lineName(key)}` : run.name,
    stroke: () => color(run.place),
    dash: keys.length > 1 ? DASHES[keys.indexOf(key) % 4] : DASHES[Math.floor(run.place / 4) % 4],
  }))))];
}

const byLine = (run, keys) => keys.map((key, place) => (
  { run, key, label: lineName(key), stroke: hue(place, keys.length), dash: [] }));

// The values of a key in a run, or as soon as there are more the first two.
function valuesOf(run, key) {
  const { mean, min, max } = run.curves.series[key] || { mean: [] }, values = new Set();
  for (const column of [mean, min || [], max || []]) {
    for (const value of column) if (values.add(value).size > 1) return [...values];
  }
  return [...values];
}

// Whether a key has a curve to show: not where each run has one value of it.
const moves = (key) => key === "loss" || runs.some((run) => valuesOf(run, key).length > 1);

function unmoved(key) {
  const values = new Map(runs.map((run) => [run.name, valuesOf(run, key)]).filter(([, found]) => found.length));
  const same = new Set([...values.values()].flat());
  if (same.size === 1) return [key, " ", el("b", {}, number([...same][0]))];
  return [key, [...values].map(([name, [value]]) => [" ", name, " ", el("b", {}, number(value))])];
}

// The charts of a key, and of its family `KEY/NAME`.
function chartsOfSpec(spec, keys) {
  const plain = keys.filter((key) => !key.includes("/")), named = keys.filter((key) => key.includes("/"));
  return [
    ...(plain.length ? chartsOf(spec, plain) : []),
    ...(named.length ? chartsOf({ ...spec, title: `${spec.title} by ${spec.by || "name"}`, wide: false }, named) : []),
  ].map((chart) => chart.node);
}

function chartSections() {
  const left = new Set(keysOf()), found = [];
  const take = (id, title, specs) => {
    const nodes = [], still = [];
    for (const spec of specs) {
      const wanted = [spec.key, ...(spec.with || [])];
      const keys = [...left].filter((key) => wanted.includes(key) || family(key) === spec.key);
      keys.forEach((key) => left.delete(key));
      still.push(...keys.filter((key) => !moves(key)));
      nodes.push(...chartsOfSpec(spec, keys.filter(moves)));
    }
    found.push(chartSection(id, title, nodes, still));
  };
  for (const [id, title, specs] of KNOWN) take(id, title, specs);
  take("more", "More", [...new Set([...left].map(family))].map((key) => ({ key, title: key })));
  return found.filter(Boolean);
}

function chartSection(id, title, nodes, still) {
  if (!nodes.length && !still.length) return null;
  return section(id, title, el("div", { class: "charts" }, nodes), id === "data" && sources(),
    still.length > 0 && el("p", { class: "constants" }, "One value only: ",
      still.map((key, place) => [place ? ", " : "", unmoved(key)])));
}

// Each source's share of the targets so far.
function sources() {
  const having = runs.filter((run) => Object.keys(run.facts.sources).length);
  if (!having.length) return null;
  const names = [...new Set(having.flatMap((run) => Object.keys(run.facts.sources)))];
  return table(["Share of the targets so far", ...having.map((run) => run.name)], names.map((name) =>
    el("tr", {}, el("th", { scope: "row" }, name), having.map((run) => el("td", {}, share(run.facts.sources[name]))))), { class: "narrow" });
}
