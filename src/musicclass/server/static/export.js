// The songs of the page as JSON and CSV.
import {saveFile} from "./dom.js";

const COLUMNS = ["file", "genre", "top_genre", "confidence", "familiarity", "duration", "tags", "label"];

export function saveJson(songs) {
  const results = songs.map(({name, prediction, error, state, label}) => {
    if (!prediction) return {file: name, error: error ?? state};
    const {waveform_peaks, limit, ...result} = prediction;
    return label ? {...result, label} : result;
  });
  saveFile(new Blob([JSON.stringify(results, null, 1)], {type: "application/json"}), "genres.json");
}

export function saveCsv(songs, genres) {
  const rows = songs.map(({name, prediction: p, error, state, label = ""}) => p
    ? [name, p.genre, p.top_genre, p.confidence.toFixed(6), p.familiarity.toFixed(6), p.duration.toFixed(3),
       Object.keys(p.tags).join(", "), label, ...genres.map(genre => p.probabilities[genre].toFixed(6)), ""]
    : [name, ...Array(COLUMNS.length - 1 + genres.length).fill(""), error ?? state]);
  const header = [...COLUMNS, ...genres.map(genre => `prob_${genre}`), "error"];
  const lines = [header, ...rows].map(row => `${row.map(csvField).join(",")}\r\n`);
  saveFile(new Blob(lines, {type: "text/csv"}), "genres.csv");
}

/** A field of a CSV, quoted where needed; an apostrophe disarms what a spreadsheet would run as a formula. */
function csvField(text) {
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
