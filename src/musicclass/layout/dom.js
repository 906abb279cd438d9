// Elements, canvases, files and numbers: helpers of all pages and of the library's report.
export const $ = id => document.getElementById(id);

/** An element with properties or attributes, CSS properties (`css`), and children: nodes or text. */
export function createElement(name, {css = {}, ...attributes} = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  for (const [key, value] of Object.entries(css)) node.style.setProperty(key, value);
  node.append(...children);
  return node;
}

/** A table of a caption, column headers (text or <th>) and rows. */
export function createTable(caption, headers, rows, className = "") {
  const cells = headers.map(header => header instanceof Node ? header : createElement("th", {scope: "col"}, header));
  return createElement("table", {className},
    createElement("caption", {}, caption),
    createElement("thead", {}, createElement("tr", {}, ...cells)),
    createElement("tbody", {}, ...rows));
}

export const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)}%`;
/** A probability as text; never 100%, since no prediction is certain. */
export const probabilityText = value => value >= .995 ? ">99%" : percent(value);
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Seconds as 1:05 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.floor(seconds + 1e-6), parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) parts.unshift(Math.floor(whole / 3600));
  return parts.map((part, i) => i ? String(part).padStart(2, "0") : part).join(":");
}

const dark = matchMedia("(prefers-color-scheme: dark)");
export const isDark = () => dark.matches;

/** Colors of the style sheet that canvases need. */
export const themeColors = () => isDark()
  ? {ink: "#eceae4", muted: "#7d818b", track: "#2a2e37", paper: "#1c1f25"}
  : {ink: "#1d1f24", muted: "#8b8e96", track: "#e9e5dc", paper: "#fffefb"};

/** A color as #rrggbb with an opacity between 0 and 1. */
export const withAlpha = (hex, alpha) => hex + Math.round(255 * alpha).toString(16).padStart(2, "0");

/** Call `draw(context, width, height)`, in CSS pixels at the screen's resolution. */
export function drawOn(canvas, draw) {
  const {width, height} = canvas.getBoundingClientRect();
  if (!width) return;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  draw(context, width, height);
}

/** Call `redraw` now and whenever the canvas's size, the color scheme or the screen's density changes. */
export function keepDrawn(canvas, redraw) {
  const redrawIfShown = () => { if (canvas.isConnected) redraw(); };
  new ResizeObserver(redraw).observe(canvas.parentElement);
  dark.addEventListener("change", redrawIfShown);
  addEventListener("densitychange", redrawIfShown);
}

function watchDensity() {
  matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => {
    dispatchEvent(new Event("densitychange"));
    watchDensity();
  }, {once: true});
}
watchDensity();

/** Let the browser save a blob as a file. */
export function saveFile(blob, name) {
  const link = createElement("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
