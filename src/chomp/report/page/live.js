// A page of `chomp watch` asks for what is new: only rows that it doesn't have yet.

const SECONDS_BETWEEN = 3, MOST_APPENDED = 3000;

async function ask(path) {
  try {
    const answer = await fetch(path, { cache: "no-store" });
    if (answer.status === 204) return null;
    return await answer.json();
  } catch (error) {
    return { problem: `no answer: ${error.message}` };
  }
}

const appended = new Map();

async function refresh() {
  const have = runs.map((run) => ({
    name: run.name,
    generation: run.curves.generation,
    rows: (appended.get(run.name) || 0) > MOST_APPENDED ? -1 : run.curves.rows,
    samples: run.samples.all,
    version: run.version,
  }));
  const known = runs.length + DATA.others.length;
  const news = await ask(`changes?known=${known}&have=${encodeURIComponent(JSON.stringify(have))}`);
  const sign = document.getElementById("live");
  sign.classList.toggle("lost", Boolean(news?.problem));
  sign.textContent = news?.problem ? "no answer" : "live";
  if (!news?.runs) return;
  if (news.others) showOthers(news.others);
  let structure = false, newTexts = false;
  for (const { name, curves, samples: texts, facts, version, problem } of news.runs) {
    const run = runs.find((each) => each.name === name);
    if (!run) continue;
    if (problem) run.facts.problems = [problem];
    if (curves) {
      const before = Object.keys(run.curves.series).length;
      if (curves.first > 0) {
        append(run.curves, curves);
        appended.set(name, (appended.get(name) || 0) + curves.axes.step.length);
      } else {
        run.curves = curves;
        appended.delete(name);
      }
      structure ||= Object.keys(run.curves.series).length !== before;
    }
    if (texts?.new) run.samples = { all: texts.all, samples: run.samples.samples.concat(texts.new) };
    else if (texts) run.samples = texts;
    if (facts) Object.assign(run, { facts: { ...run.facts, ...facts }, version });
    newTexts ||= Boolean(texts);
  }
  if (structure || (newTexts && !document.getElementById("samples"))) build();
  else {
    replace(overview());
    replace(goodput());
    replace(history());
    if (newTexts) replace(samples());
    drawAll();
  }
}

// What else the folder holds now: open where a run has come.
function showOthers(names) {
  const come = names.some((name) => !DATA.others.includes(name));
  const old = document.querySelector(".legend"), open = come || old.querySelector("details")?.open;
  DATA.others = names;
  old.replaceWith(legend());
  if (open) document.querySelector(".legend details")?.setAttribute("open", "");
}

function replace(node) {
  const old = node && document.getElementById(node.id);
  if (old) old.replaceWith(node);
}

function live() {
  setInterval(() => { if (!document.hidden) refresh(); }, 1000 * SECONDS_BETWEEN);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}
