// The page as a whole: what to choose at the side, the sections in the middle.

function controls() {
  const axes = Object.entries(AXES).filter(([name]) => runs.some((run) => run.curves.axes[name]?.some((v) => v > 0)));
  const choose = el("fieldset", { class: "segments" }, el("legend", {}, "Horizontal axis"), axes.map(([name, { title }]) =>
    el("label", {}, el("input", { type: "radio", name: "axis", value: name, checked: name === view.axis, onchange: () => {
      view.axis = name;
      zoomTo(null);
    } }), el("span", {}, title))));
  const amount = el("output", {}, "off");
  const smooth = el("label", { class: "slider" }, el("span", {}, "Smoothing ", amount),
    el("input", { type: "range", min: "0", max: "0.99", step: "0.01", value: String(view.smoothing), oninput: (event) => {
      view.smoothing = Number(event.target.value);
      amount.textContent = view.smoothing ? view.smoothing.toFixed(2) : "off";
      drawAll();
    } }));
  const log = el("label", { class: "check" }, el("input", { type: "checkbox", id: "log", checked: view.log, onchange: (event) => {
    view.log = event.target.checked;
    drawAll();
  } }), "Logarithmic");
  return el("div", { class: "controls" }, choose, smooth, log,
    el("button", { type: "button", id: "unzoom", hidden: !view.zoom, onclick: () => zoomTo(null) }, "Whole range"));
}

function legend() {
  return el("fieldset", { class: "legend" }, el("legend", {}, runs.length > 1 ? "Runs" : "Run"),
    runs.map((run) => el("label", {},
      el("input", { type: "checkbox", checked: !view.hidden.has(run.name), data: { run: run.name }, onchange: (event) => {
        view.hidden[event.target.checked ? "delete" : "add"](run.name);
        samples.show?.();
        drawAll();
      } }), runName(run))),
    DATA.others.length > 0 && el("details", {}, el("summary", {}, `${DATA.others.length} more in this folder`),
      el("ul", { class: "others" }, DATA.others.map((name) => el("li", {}, el("a", { href: withRun(name) }, name))))));
}

// The address of this page with one more run.
function withRun(name) {
  const names = [...runs.map((run) => run.name), name];
  return `?${new URLSearchParams(names.map((each) => ["run", each]))}`;
}

function build() {
  charts.forEach((chart) => chart.forget());
  const open = [...document.querySelectorAll("details[open]")].map((node) => node.closest("[id]")?.id);
  const at = scrollY;
  const sections = [overview(), ...chartSections(), goodput(), samples(), documents(), history(), configs(), branches(), lastValues()]
    .filter(Boolean);
  const links = sections.map((node) => el("a", { href: `#${node.id}` }, node.querySelector("h2").textContent));
  document.title = `${runs.map((run) => run.name).join(", ")} – chomp`;
  document.body.replaceChildren(
    el("a", { class: "skip", href: "#overview" }, "To the runs"),
    el("aside", {},
      el("header", {}, el("h1", {}, "chomp"),
        el("p", {}, DATA.live ? el("span", { id: "live" }, "live") : date(DATA.made))),
      legend(), controls(), el("nav", { "aria-label": "Sections" }, links)),
    el("main", {}, sections));
  for (const id of open) document.getElementById(id)?.querySelector("details")?.setAttribute("open", "");
  if (at) scrollTo(0, at);
  document.documentElement.dataset.ready = "yes";
}

build();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
if (DATA.live) live();
