// Samples through training, and the documents of a step.

function samples() {
  const having = runs.filter((run) => run.samples.samples.length);
  if (!having.length) return null;
  const steps = [...new Set(having.flatMap((run) => run.samples.samples.map(({ step }) => step)))].sort((a, b) => a - b);
  const columns = el("div", { class: "samples" });
  const at = el("output", {});
  const slider = el("input", { type: "range", min: "0", max: String(steps.length - 1), value: String(steps.length - 1),
    "aria-label": "Step of the samples", oninput: () => { samples.step = steps[slider.value]; show(); } });
  const chosen = steps.indexOf(samples.step);
  if (chosen >= 0 && chosen < steps.length - 1) slider.value = String(chosen);
  const move = (by) => { slider.value = String(Number(slider.value) + by); samples.step = steps[slider.value]; show(); };
  function show() {
    const step = steps[slider.value];
    at.textContent = `step ${whole(step)}`;
    slider.setAttribute("aria-valuetext", at.textContent);
    columns.replaceChildren(...having.filter((run) => !view.hidden.has(run.name)).map((run) => {
      const found = run.samples.samples.filter((sample) => sample.step <= step).pop();
      return el("article", { data: { run: run.name } },
        el("h3", {}, runs.length > 1 && runName(run), el("small", {}, found ? `step ${whole(found.step)}` : "no sample yet")),
        found && el("pre", {}, el("span", { class: "prompt" }, found.prompt), el("span", { class: "text" }, found.continuation)),
        found?.cut && el("p", { class: "hint" }, "The text is longer than is shown here."));
    }));
    // The prompt can be long; what the model wrote is what matters.
    for (const text of columns.querySelectorAll(".text")) text.parentNode.scrollTop = text.offsetTop - 110;
  }
  samples.show = show;
  requestAnimationFrame(show);
  const fewer = having.filter((run) => run.samples.all > run.samples.samples.length)
    .map((run) => `${whole(run.samples.samples.length)} of the ${whole(run.samples.all)} samples of ${run.name} are here`);
  return section("samples", "Samples",
    el("div", { class: "player" },
      el("button", { type: "button", "aria-label": "Sample before", onclick: () => move(-1) }, "←"), slider,
      el("button", { type: "button", "aria-label": "Next sample", onclick: () => move(1) }, "→"), at),
    fewer.length > 0 && el("p", { class: "hint" }, `${fewer.join("; ")}.`), columns);
}

function documents() {
  const having = DATA.live ? runs : runs.filter((run) => run.documents?.steps.length);
  if (!having.length) return null;
  const which = el("select", { "aria-label": "Run" }, having.map((run) => el("option", { value: run.name }, run.name)));
  const steps = el("datalist", { id: "ledger-steps" });
  const step = el("input", { type: "number", min: "1", list: "ledger-steps", "aria-label": "Step" });
  const found = el("div", { class: "documents", "aria-live": "polite" });
  const of = () => having.find((run) => run.name === which.value);
  const form = el("form", { class: "player", onsubmit: (event) => { event.preventDefault(); look(); } },
    el("label", {}, "Documents of step ", step), having.length > 1 && el("label", {}, " of ", which),
    el("button", { type: "submit" }, "Look up"));

  function offer() {
    const known = of().documents?.steps || [];
    steps.replaceChildren(...known.map((entry) => el("option", { value: String(entry.step) })));
    step.value = String((known[known.length - 1] || { step: of().facts.step }).step);
    look();
  }
  async function look() {
    const run = of(), wanted = Number(step.value);
    if (DATA.live) {
      found.replaceChildren(el("p", { class: "hint" }, "Reading …"));
      show(await ask(`documents?${new URLSearchParams({ run: run.name, step: wanted })}`), wanted);
    } else {
      const { steps: known, problem } = run.documents;
      const entry = known.reduce((best, each) => (
        Math.abs(each.step - wanted) < Math.abs(best.step - wanted) ? each : best), known[0]);
      show(entry || { problem }, wanted);
    }
  }
  function show(entry, wanted) {
    if (!entry || entry.problem || !entry.documents) {
      found.replaceChildren(el("p", { class: "problem" }, entry?.problem || "not in the ledger"));
      return;
    }
    const rows = entry.documents.map(({ source, row, text }) => el("tr", {},
      el("td", { class: "long" }, source), el("td", {}, whole(row)), text != null && el("td", { class: "long first-words" }, text)));
    found.replaceChildren(
      entry.step !== wanted && el("p", { class: "hint" }, `Step ${whole(wanted)} isn't on this page; the nearest that is:`) || "",
      el("p", {}, el("b", {}, `Step ${whole(entry.step)}`), `, batch ${whole(entry.batch)}, hash ${entry.hash}: `
        + `${whole(entry.tokens)} tokens, ${whole(entry.targets)} targets, ${whole(entry.count)} documents`
        + (entry.count > rows.length ? `, the first ${rows.length} of them:` : "")),
      table(["Source", "Row", ...(entry.documents[0]?.text != null ? ["First words"] : [])], rows),
      entry.documents[0]?.text == null && el("p", { class: "hint" }, "Their names and first words: ",
        el("code", {}, `chomp trace ${of().facts.folder} --step ${entry.step}`)) || "");
  }
  which.addEventListener("change", offer);
  if (DATA.live) step.value = String(having[0].facts.step);
  else offer();
  return section("documents", "Documents of a step",
    el("p", { class: "hint" }, DATA.live ? "What a step was trained on, from the ledger and the run's data."
      : "From the ledger: the steps where the loss rose most, and some evenly between. All others: chomp trace, or chomp watch."),
    form, steps, found);
}
