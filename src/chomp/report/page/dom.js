// Elements, and numbers as text. What comes from a run becomes text nodes, never markup.

function el(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value == null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

const section = (id, title, ...children) =>
  el("section", { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title), ...children);

const table = (head, rows, properties) =>
  el("div", { class: `scroll ${properties?.class || ""}`, tabindex: "0", role: "region", "aria-label": head.filter((cell) => typeof cell === "string").join(", ") },
    el("table", properties?.id ? { id: properties.id } : {},
      el("thead", {}, el("tr", {}, head.map((cell) => el("th", { scope: "col" }, cell)))),
      el("tbody", {}, rows)));

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

const whole = (value) => (value == null ? "–" : GROUPED.format(value));

function number(value) {
  if (value == null || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return GROUPED.format(value);
  if (size >= 1e15) return value.toExponential(3);
  if (size >= 1e5) return SHORT.format(value);
  if (size >= 1000) return GROUPED.format(value);
  if (size >= 100) return value.toFixed(1);
  if (size >= 1) return value.toFixed(size >= 10 ? 3 : 4);
  if (size >= 1e-3 || size === 0) return value.toPrecision(4);
  return value.toExponential(2);
}

const share = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);

function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds === 0) return "0 s";
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  for (let at = 0; at < 3; at++) {
    const [size, name] = parts[at];
    if (seconds >= size) {
      const [smaller, small] = parts[at + 1];
      const rest = Math.floor((seconds % size) / smaller);
      return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${small}` : ""}`;
    }
  }
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

const date = (seconds) =>
  seconds == null ? "–" : new Date(1000 * seconds).toLocaleString("en-GB", { hour12: false });

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
