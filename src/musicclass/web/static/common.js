// What all pages share.
export const $ = id => document.getElementById(id);

/** An element with text, attributes, CSS properties and children. */
export function make(name, {text, children, css, ...attributes} = {}) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  for (const [key, value] of Object.entries(css || {})) node.style.setProperty(key, value);
  node.append(...(children || []));
  return node;
}

export const percent = share => `${Math.round(100 * share)}%`;

export function clock(seconds) {
  const whole = Math.floor(seconds + 1e-6);
  const parts = [Math.floor(whole / 60), whole % 60];
  if (parts[0] >= 60) parts.splice(0, 1, Math.floor(parts[0] / 60), parts[0] % 60);
  return parts.map((part, i) => i ? String(part).padStart(2, "0") : part).join(":");
}

export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/** Ink and paper as canvases need them. */
export function inks() {
  return isDark()
    ? {ink: "#eceae4", quiet: "#7d818b", paper: "#1c1f25", track: "#2a2e37", line: "#363a44"}
    : {ink: "#1d1f24", quiet: "#8b8e96", paper: "#fffefb", track: "#e9e5dc", line: "#dcd8cf"};
}

let colours = {};
export const setColours = found => { colours = found; };

/** The genre's colour: greys for unknown and, null, silence. Dark ones are lifted on dark paper. */
export function colour(genre) {
  if (genre === null || genre === undefined) return isDark() ? "#3a3e48" : "#dddddd";
  const found = colours[genre] || "#9a9a9a";
  if (!isDark() || found !== "#555555") return found;
  return "#c8d0dc";
}

/** A colour with an opacity between 0 and 1. */
export const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");

/** A canvas's context at the screen's resolution, with its size in CSS pixels. */
export function surface(canvas) {
  const ratio = devicePixelRatio || 1, {width, height} = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return {context, width, height};
}

/** Have the browser save a blob. */
export function save(blob, name) {
  const link = make("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** JSON from the server; throws an Error with what went wrong, in words. */
export async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("the server can't be reached; is it still running?");
  }
  const told = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.detail || `the server answered ${answer.status}`);
  return told;
}

const RIGHT = {
  test: "It was right", folds: "Models made alike, which didn't know the artists, were right",
  valid: "It was right, while its settings were chosen,", train: "It was right, where it had learnt,",
};
/** The parts on which a model was judged, what tells most first. */
export const judged = found => Object.keys(RIGHT).filter(part => found.metrics[part]?.confusion);

let model = null;
/** The model's card; asked for once. */
export function card() {
  model ??= ask("/v1/model").then(found => {
    setColours(found.colours);
    const [part] = judged(found), right = part ? ` ${RIGHT[part]} on ${percent(found.metrics[part].accuracy)} of their tracks.` : "";
    if ($("about-model")) $("about-model").textContent = `${found.genres.length} genres are all that this model knows.${right}`;
    if (found.library) document.querySelectorAll("#library-link").forEach(link => { link.hidden = false; });
    return found;
  });
  return model;
}

/** "Probably jazz": an answer in words. */
export function verdict(answer) {
  if (answer.genre === "unknown") return "Can't say";
  const how = answer.confidence >= .8 ? "Clearly" : answer.confidence >= .55 ? "Probably" : "Perhaps";
  return `${how} ${answer.genre}`;
}

/** Why an answer is so sure, or none. */
export function reason(answer) {
  const sure = `${percent(answer.confidence)} sure`, strange = answer.familiarity < .5 && "unlike the music this model knows";
  if (answer.genre !== "unknown") return strange ? `${sure}: ${strange}` : sure;
  return `${strange || `only ${sure}`}; best guess ${answer.best_guess}`;
}

/** Bars for all genres, as a list. */
export function bars(target, probabilities) {
  target.replaceChildren(...Object.entries(probabilities).map(([genre, share]) => {
    const fill = make("i", {css: {width: `${100 * share}%`}});
    return make("li", {css: {"--genre": colour(genre)}, children: [
      make("span", {text: genre}),
      make("span", {className: "bar", "aria-hidden": "true", children: [fill]}),
      make("span", {text: percent(share)}),
    ]});
  }));
}

/** A strip along time: each segment in its genre's colour, as strong as it is sure. */
export function drawLine(canvas, answer) {
  const {context, width, height} = surface(canvas), ink = inks();
  context.fillStyle = ink.track;
  context.fillRect(0, 0, width, height);
  for (const part of answer.segments) {
    const left = part.start / answer.duration * width, right = part.end / answer.duration * width;
    context.fillStyle = part.genre === null ? ink.track
      : faded(colour(part.genre), part.genre === "unknown" ? .35 : .25 + .75 * part.confidence);
    context.fillRect(left, 0, Math.max(1, right - left - 1), height);
  }
}

/** The segment that holds a moment. */
export const segmentAt = (answer, seconds) =>
  answer.segments.find(part => seconds < part.end) || answer.segments[answer.segments.length - 1];

/** "jazz, 83% sure": a segment in words. */
export function inWords(part) {
  if (part.genre === null) return "silence";
  return part.genre === "unknown" ? `unknown (perhaps ${part.best_guess})` : `${part.genre}, ${percent(part.confidence)} sure`;
}
