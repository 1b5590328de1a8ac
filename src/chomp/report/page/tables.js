// What is read rather than drawn: the runs, where time went, what happened, what differs.

const last = (run, key) => run.facts.last[key]?.[1];
const runName = (run) => el("span", { class: "name" }, swatch(run.place), run.name);

function overview() {
  const columns = [
    ["Step", (run) => [whole(run.facts.step), run.facts.steps && el("small", {}, ` of ${whole(run.facts.steps)}`)], "step"],
    ["Tokens", (run) => number(last(run, "tokens_seen")), "tokens_seen"],
    ["Loss", (run) => number(last(run, "loss")), "loss"],
    ["Eval loss", (run) => number(last(run, "eval_loss")), "eval_loss"],
    ["Best", (run) => bestOf(run, "eval_loss")],
    ["Bits/byte", (run) => number(last(run, "eval_bits_per_byte")), "eval_bits_per_byte"],
    ["Targets/s", (run) => number(last(run, "tokens_per_sec")), "tokens_per_sec"],
    ["Goodput", (run) => share(run.facts.goodput.steps?.share)],
    runs.some((run) => run.facts.running)
      && ["Left", (run) => (run.facts.running ? duration(run.facts.seconds_left) : "–")],
  ].filter(Boolean);
  const rows = runs.map((run) => el("tr", { data: { run: run.name } },
    el("th", { scope: "row" }, runName(run), el("small", {}, run.facts.state)),
    columns.map(([title, cell, key]) => {
      const value = key && (key === "step" ? run.facts.step : last(run, key));
      return el("td", { data: { title, ...(value != null && { key, value }) } }, cell(run));
    })));
  const problems = runs.flatMap((run) => run.facts.problems.map((text) => `${run.name}: ${text}`));
  return section("overview", "Runs",
    table(["Run", ...columns.map(([title]) => title)], rows, { class: "cards" }),
    problems.map((text) => el("p", { class: "problem" }, text)),
    el("p", { class: "hint" }, drawnRows()));
}

function bestOf(run, key) {
  const found = run.facts.best[key];
  return found ? [number(found[1]), el("small", {}, ` at ${whole(found[0])}`)] : "–";
}

function drawnRows() {
  const long = runs.filter((run) => Object.values(run.curves.series).some((series) => series.min));
  if (!long.length) return "Every row of metrics is drawn.";
  return `${long.map((run) => `${run.name} has ${whole(run.curves.rows)} rows`).join(", ")}: `
    + "neighbouring rows are drawn as one point, their mean, in a band from their least to their "
    + "largest value; the last row stands alone.";
}

const PARTS = ["steps", "steps lost", "compile", "data wait", "saving", "evaluation", "sampling",
  "starting", "closing", "downtime", "other"];

function goodput() {
  const there = PARTS.filter((part) => runs.some((run) => run.facts.goodput[part]?.seconds >= 0.05));
  const bars = runs.map((run) => {
    const bar = el("div", { class: "bar", role: "img", "aria-label": `${run.name}: ${share(run.facts.goodput.steps?.share)} in steps` },
      there.map((part) => {
        const piece = el("i", { class: `part-${PARTS.indexOf(part)}`, title: `${part}: ${duration(run.facts.goodput[part].seconds)}` });
        piece.style.flexGrow = run.facts.goodput[part].share;
        return piece;
      }));
    return el("div", { class: "bars" }, runName(run), bar);
  });
  const rows = there.map((part) => el("tr", {},
    el("th", { scope: "row" }, el("i", { class: `swatch part-${PARTS.indexOf(part)}` }), part),
    runs.map((run) => el("td", {}, share(run.facts.goodput[part].share), " ",
      el("small", {}, duration(run.facts.goodput[part].seconds))))));
  if (!there.length) return null;
  return section("time", "Where the time went", bars, table(["Since the first start", ...runs.map((run) => run.name)], rows));
}

function history() {
  const parts = runs.map((run) => {
    const { starts, marks, skipped_batches: skipped } = run.facts;
    const rows = starts.map((start) => el("tr", {},
      el("th", { scope: "row" }, String(start.number)),
      el("td", {}, date(start.time)),
      el("td", {}, whole(start.from_step)),
      el("td", {}, whole(start.last_step)),
      el("td", {}, start.ended || "running", start.error && el("div", { class: "problem" }, start.error)),
      el("td", {}, duration(start.end_time && start.end_time - start.time)),
      el("td", { class: "long" },
        start.device, start.device && ", ", start.host,
        start.changes.map((change) => el("div", {}, `${change.key}: was ${shown(change.old)}, now ${shown(change.new)}`)),
        start.fallbacks.map((each) => el("div", {}, `checkpoint ${each.step} passed over: ${each.reason}`)),
        start.events.map((event) => el("div", {}, eventText(event))))));
    return [
      runs.length > 1 && el("h3", {}, runName(run)),
      table(["Start", "When", "From step", "To step", "End", "Lasted", "Machine, changes, events"], rows),
      el("ul", { class: "marks" }, marks.filter((mark) => !mark.of_start).map((mark) => el("li", {},
        el("b", {}, MARKS[mark.kind] || "•"), ` ${mark.kind} at step ${whole(mark.step)}: ${mark.text}`))),
      skipped.length > 0 && el("p", {}, `Batches left out for good: ${skipped.join(", ")}`),
    ];
  });
  return section("history", "History",
    el("p", { class: "hint" }, "Marks on the curves: ",
      Object.entries(MARKS).map(([kind, sign]) => el("span", { class: "sign" }, el("b", {}, sign), kind))), parts);
}

function eventText({ time, kind, ...rest }) {
  const values = Object.entries(rest).map(([key, value]) => `${key} ${shown(value)}`);
  return `${date(time)} ${kind} ${values.join(", ")}`;
}

function lastValues() {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.facts.last)))].sort();
  const rows = keys.map((key) => el("tr", {}, el("th", { scope: "row" }, key), runs.map((run) => {
    const [step, value] = run.facts.last[key] || [];
    return el("td", value == null ? {} : { data: { run: run.name, metric: key, value, step } },
      number(value), value != null && el("small", {}, ` at ${whole(step)}`));
  })));
  return section("last", "Last values", el("details", {}, el("summary", {}, `${keys.length} metrics`),
    table(["Metric", ...runs.map((run) => run.name)], rows)));
}

// What follows from other values, or says where a run is, is no difference of its own.
const FOLLOWS = /^derived\.|^logging\.(run_dir|metrics_file|log_file)$|^checkpoint\.root_dir$/;

function configs() {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.facts.config)))];
  const text = (run, key) => (key in run.facts.config ? shown(run.facts.config[key]) : "–");
  const differs = (key) => new Set(runs.map((run) => text(run, key))).size > 1;
  const row = (key) => el("tr", { class: differs(key) ? "differs" : null },
    el("th", { scope: "row" }, key), runs.map((run) => el("td", { class: "long" }, text(run, key))));
  const head = ["Key", ...runs.map((run) => run.name)];
  const different = keys.filter((key) => differs(key) && !FOLLOWS.test(key));
  const all = keys.map((key) => [key, row(key)]);
  const find = el("input", { type: "search", placeholder: "Find a key", "aria-label": "Find a key", oninput: () => {
    for (const [key, node] of all) node.hidden = !key.includes(find.value.trim());
  } });
  return section("config", "Configuration",
    runs.length > 1 && (different.length
      ? [el("p", {}, `${different.length} ${different.length === 1 ? "value differs" : "values differ"}:`), table(head, different.map(row), { id: "differences" })]
      : el("p", {}, "No value differs.")),
    el("details", {}, el("summary", {}, `All ${keys.length} values`), find,
      table(head, all.map(([, node]) => node), { class: "mono" })));
}

function branches() {
  const told = runs.filter((run) => run.facts.ancestors.length || run.facts.descendants.length);
  if (!told.length) return null;
  const what = ({ step, kind }) => ` ${kind === "branch" ? "after step" : "with the weights of step"} ${whole(step)}`;
  const below = (children) => children.length > 0 && el("ul", {}, children.map((child) =>
    el("li", {}, child.folder, el("small", {}, what(child)), below(child.children))));
  const trees = told.map((run) => {
    let origin = run.facts.ancestors[0];
    let tree = el("li", {}, el("strong", {}, runName(run)), origin && el("small", {}, what(origin)),
      below(run.facts.descendants));
    run.facts.ancestors.forEach((parent, place) => {
      origin = run.facts.ancestors[place + 1];
      tree = el("li", {}, parent.folder, !parent.there && el("small", {}, " (not there now)"),
        origin && el("small", {}, what(origin)), el("ul", {}, tree));
    });
    return el("ul", { class: "tree" }, tree);
  });
  return section("branches", "Branches", trees);
}
