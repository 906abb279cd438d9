// A prediction (see prediction.py) in words, and as CSS.
import {percent, probabilityText} from "./dom.js";

const ALSO = .2; // the probability from which a second genre is in the headline
const LIGHTENED = {"#555555": "#c8d0dc", "#223366": "#8f9fe0", "#117744": "#2fa56a", "#bb4422": "#d9674a"};
let colors = {};
export const setColors = byGenre => { colors = byGenre; };

/** A genre's colors on light and dark ground: greys for "unknown" and for null, silence. */
const bothColors = genre => {
  const color = colors[genre] ?? "#9a9a9a";
  return genre === null ? ["#dddddd", "#3a3e48"] : [color, LIGHTENED[color] ?? color];
};
/** A genre's color for the map; elements have cssColor, which follows the color scheme. */
export const genreColor = genre => bothColors(genre)[Number(matchMedia("(prefers-color-scheme: dark)").matches)];
export const cssColor = genre => `light-dark(${bothColors(genre).join(", ")})`;

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

/** The second genre, where it is probable. */
export function secondGenre({probabilities}) {
  const [genre, probability] = Object.entries(probabilities)[1] ?? [];
  return probability >= ALSO ? genre : null;
}

/** The genres of a track's segments. */
export const genresOf = ({segments}) => [...new Set(segments.map(({genre}) => genre))];

export const genresText = prediction => genresOf(prediction).map(genre => genre ?? "silence").join(", ");

/** Shares [[genre, number]] in words. */
export function sharesText(shares) {
  const total = shares.reduce((sum, [, n]) => sum + n, 0), named = shares.filter(([, n]) => n / total >= .005);
  return named.map(([genre, n]) => `${genre} ${percent(n / total)}`).join(", ");
}

/** The segment at a time in seconds. */
export const segmentAt = ({segments}, seconds) => segments.find(segment => seconds < segment.end) ?? segments.at(-1);

/** Segments along time as a gradient: their genres' colors, the more opaque the more confident. */
export function timeline({segments, duration}) {
  const stops = segments.map(({start, end, genre, confidence}) => {
    const opacity = genre === null ? 1 : genre === "unknown" ? .35 : .25 + .75 * confidence;
    const color = `color-mix(in srgb, ${cssColor(genre)} ${percent(opacity)}, transparent)`;
    const [from, to] = [start, end].map(seconds => percent(seconds / duration, 3));
    return `${color} ${from} calc(${to} - var(--gap, 1px)), transparent 0 ${to}`;
  });
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** The waveform as a mask: an image with one bar for each peak. */
export function waveform({waveform_peaks: peaks}) {
  const loudest = Math.max(.05, ...peaks), half = peak => Math.max(1, Math.round(50 * peak / loudest));
  const bars = peaks.map((peak, i) => `M${i + .5} ${50 - half(peak)}v${2 * half(peak)}`).join("");
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${peaks.length} 100" preserveAspectRatio="none">`
    + `<path stroke="#000" stroke-width="1.5" d="${bars}"/></svg>`;
  return `url("data:image/svg+xml,${encodeURIComponent(svg)}")`;
}
