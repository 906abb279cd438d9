// Songs side by side, in a table.
import {createElement, createTable, drawOn, percent, probabilityText} from "./dom.js";
import {cssColor, drawTimeline, genreLabel} from "./prediction.js";

/** Show songs with predictions, in their order. */
export function showComparison(section, songs) {
  const genres = Object.keys(songs[0]?.prediction.probabilities ?? {}).sort();
  const rows = songs.map(({name, prediction: {genre, confidence, probabilities, segments}}) => createElement("tr", {},
    createElement("th", {scope: "row", className: "song"}, name),
    createElement("td", {}, genreLabel(genre)),
    createElement("td", {}, genre === "unknown" ? "–" : probabilityText(confidence)), // that of the closest genre
    createElement("td", {}, createElement("canvas", {className: "timeline", role: "img",
      ariaLabel: [...new Set(segments.map(segment => segment.genre ?? "silence"))].join(", ")})),
    ...genres.map(each => createElement("td", {className: "number", css: {
      "--color": cssColor(each), "--share": percent(.4 * probabilities[each]), // numbers stay readable
    }}, probabilityText(probabilities[each])))));
  const headers = ["Song", "Genre", "Confidence", "Timeline", ...genres];
  section.replaceChildren(createTable("Columns of genres: probabilities.", headers, rows));
  section.querySelectorAll("canvas").forEach((canvas, i) => drawOn(canvas, (context, width, height) =>
    drawTimeline(context, songs[i].prediction, 0, 0, width, height)));
}
