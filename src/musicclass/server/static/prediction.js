// A prediction (see prediction.py) in words, colors and drawings.
import {createElement, isDark, percent, probabilityText, themeColors, withAlpha} from "./dom.js";

const ALSO = .2, NAMED = 3; // the probability from which a second genre is in the headline; genres beside the bar
const LIGHTENED = {"#555555": "#c8d0dc", "#223366": "#8f9fe0", "#117744": "#2fa56a", "#bb4422": "#d9674a"};
let colors = {};
export const setColors = byGenre => { colors = byGenre; };

/** A genre's colors on light and dark ground: greys for "unknown" and for null, silence. */
const bothColors = genre => {
  const color = colors[genre] ?? "#9a9a9a";
  return genre === null ? ["#dddddd", "#3a3e48"] : [color, LIGHTENED[color] ?? color];
};
/** A genre's color for canvases; elements have cssColor, which follows the color scheme. */
export const genreColor = genre => bothColors(genre)[Number(isDark())];
export const cssColor = genre => `light-dark(${bothColors(genre).join(", ")})`;

/** The most probable genres: "jazz", "closest to jazz, with some blues"; the second one only where it is probable. */
export function headline({genre, top_genre, probabilities}) {
  const [second, probability] = Object.entries(probabilities)[1] ?? [];
  const also = probability >= ALSO ? ["with some ", genreLabel(second)] : [];
  const rest = also.length ? [createElement("small", {}, " ", ...also)] : [];
  return [...genre === "unknown" ? ["Closest to "] : [], genreLabel(top_genre), ...rest];
}

/** "71% confident" or, where the genre is "unknown", why; library songs have no familiarity. */
export function confidenceText({genre, top_genre, confidence, familiarity}) {
  const reason = familiarity < .5 ? "unlike the training data" : "not confident enough";
  const but = familiarity < .5 ? `, but ${reason}` : "";
  if (genre !== "unknown") return `${probabilityText(confidence)} confident${but}`;
  return `${familiarity === undefined ? "" : `${reason}; `}closest to ${top_genre}, ${probabilityText(confidence)}`;
}

/** "jazz, 71% confident", for a prediction or a segment. */
export const summary = part => part.genre === null ? "silence"
  : `${part.genre}${part.genre === "unknown" ? ": " : ", "}${confidenceText(part)}`;

/** A genre with its color. */
export const genreLabel = (genre, text = genre ?? "silence", name = "span") =>
  createElement(name, {className: "genre", css: {"--genre": cssColor(genre)}}, text);

/** Shares [[genre, between 0 and 1]] as one bar. */
export function stackedBar(shares) {
  const named = shares.filter(([, share]) => share >= .005).map(([genre, share]) => `${genre} ${percent(share)}`);
  return createElement("div", {className: "stack", role: "img", ariaLabel: named.join(", ")}, ...shares.map(
    ([genre, share]) => createElement("i", {css: {"--genre": cssColor(genre), width: percent(share, 2)}})));
}

/** The probabilities of a track: one bar, the first genres by name, all of them on request. */
export function probabilityBars(probabilities) {
  const all = Object.entries(probabilities), label = ([genre, value]) =>
    genreLabel(genre, `${genre} ${probabilityText(value)}`, "li");
  return [
    stackedBar(all),
    createElement("ul", {className: "legend"}, ...all.slice(0, NAMED).filter(([, value]) => value >= .01).map(label)),
    createElement("details", {}, createElement("summary", {}, "All genres"),
      createElement("ol", {className: "bars"}, ...all.map(([genre, value]) =>
        createElement("li", {css: {"--genre": cssColor(genre)}},
          createElement("span", {}, genre),
          createElement("span", {className: "bar", ariaHidden: "true"},
            createElement("i", {css: {width: percent(value, 1)}})),
          createElement("span", {}, probabilityText(value)))))),
  ];
}

/** The segment at a time in seconds. */
export const segmentAt = ({segments}, seconds) => segments.find(segment => seconds < segment.end) ?? segments.at(-1);

/** Segments along time in a box: their genres' colors, the more opaque the more confident. */
export function drawTimeline(context, {segments, duration}, left, top, width, height, {track} = themeColors()) {
  for (const {start, end, genre, confidence} of segments) {
    context.fillStyle = genre === null ? track
      : withAlpha(genreColor(genre), genre === "unknown" ? .35 : .25 + .75 * confidence);
    context.fillRect(left + start / duration * width, top, Math.max(1, (end - start) / duration * width - 1), height);
  }
}

/** The waveform in a box; what comes before `position` (seconds) has its genre's color. */
export function drawWaveform(context, prediction, left, top, width, height, {muted} = themeColors(), position = 0) {
  const {waveform_peaks: peaks, duration} = prediction, loudest = Math.max(.05, ...peaks);
  const bars = Math.max(1, Math.min(peaks.length, Math.floor(width / 3))), step = width / bars;
  for (let i = 0; i < bars; i++) {
    const from = Math.floor(i * peaks.length / bars), to = Math.floor((i + 1) * peaks.length / bars);
    const tall = Math.max(2, Math.max(...peaks.slice(from, to)) / loudest * height);
    const seconds = i / bars * duration;
    context.fillStyle = seconds < position ? genreColor(segmentAt(prediction, seconds).genre) : muted;
    context.fillRect(left + i * step, top + (height - tall) / 2, Math.max(1, step - 1), tall);
  }
}
