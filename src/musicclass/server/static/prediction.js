// A prediction (see prediction.py) in words, colors and drawings.
import {createElement, isDark, percent, probabilityText, themeColors, withAlpha} from "./dom.js";

let colors = {};
export const setColors = byGenre => { colors = byGenre; };

/** A genre's color: greys for "unknown" and for null, silence. Dark grey is lightened on dark ground. */
export function genreColor(genre) {
  if (genre === null) return isDark() ? "#3a3e48" : "#dddddd";
  const color = colors[genre] ?? "#9a9a9a";
  return isDark() && color === "#555555" ? "#c8d0dc" : color;
}

/** "71% confident" or, where the genre is "unknown", why; library songs have no familiarity. */
export function confidenceText({genre, top_genre, confidence, familiarity}) {
  const reason = familiarity < .5 ? "unlike the training data" : "not confident enough";
  if (genre !== "unknown") return `${probabilityText(confidence)} confident${familiarity < .5 ? `, but ${reason}` : ""}`;
  return `${familiarity === undefined ? "" : `${reason}; `}closest to ${top_genre}, ${probabilityText(confidence)}`;
}

/** "jazz, 71% confident", for a prediction or a segment. */
export const summary = part => part.genre === null ? "silence"
  : `${part.genre}${part.genre === "unknown" ? ": " : ", "}${confidenceText(part)}`;

/** A genre with its color. */
export const genreLabel = (genre, text = genre ?? "silence", name = "span") =>
  createElement(name, {className: "genre", css: {"--genre": genreColor(genre)}}, text);

/** One bar for each genre, as list items. */
export const probabilityBars = probabilities => Object.entries(probabilities).map(([genre, probability]) =>
  createElement("li", {css: {"--genre": genreColor(genre)}},
    createElement("span", {}, genre),
    createElement("span", {className: "bar", ariaHidden: "true"},
      createElement("i", {css: {width: percent(probability, 1)}})),
    createElement("span", {}, probabilityText(probability))));

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
