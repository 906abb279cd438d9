// The model's metrics and configuration, from its card.
import {evaluatedSubsets, loadCard, SUBSETS} from "./api.js";
import {$, count, createElement, createTable, percent} from "./dom.js";
import {genreLabel} from "./prediction.js";

const METRICS = {
  accuracy: "Accuracy", macro_f1: "Macro F1", accuracy_at_60pct_coverage: "Accuracy at 60% coverage",
  ece: "Adaptive ECE", unknown_rate: "Predicted as unknown", artist_overlap: "Artist overlap with training",
};
const FIGURES = {confusion_matrix: confusionMatrix, reliability_bins: reliabilityTable, genres: genreTable};

const row = (...cells) => createElement("tr", {}, ...cells);
const cell = (...children) => createElement("td", {}, ...children);
const interval = (bounds, format) => bounds ? `95% CI ${bounds.map(value => format(value)).join(" to ")}` : "";
const definition = (term, value, note = "") => createElement("div", {},
  createElement("dt", {}, term), createElement("dd", {}, value, createElement("small", {}, note)));

/** The summary numbers of one subset, with 95% intervals, under its name. */
function summaryNumbers(subset, metrics) {
  const {n_tracks, n_artists, note = ""} = metrics;
  const size = `${count(n_tracks, "track")}${n_artists ? ` by ${count(n_artists, "artist")}` : ""}`;
  const entries = Object.entries(METRICS).filter(([key]) => metrics[key] !== undefined).map(([key, name]) => {
    const format = value => key === "ece" ? value.toFixed(3) : percent(value, 1);
    return definition(name, format(metrics[key]), interval(metrics[`${key}_ci95`], format));
  });
  return [
    createElement("h2", {}, `${SUBSETS[subset]}: ${size}`),
    createElement("dl", {className: "metrics"}, ...entries),
    createElement("p", {className: "muted"}, note),
  ];
}

function confusionMatrix(matrix, genres) {
  const headers = genres.map(genre => createElement("th", {scope: "col"}, createElement("span", {}, genre)));
  const rows = matrix.map((counts, i) => {
    const total = Math.max(1, counts.reduce((sum, n) => sum + n));
    return row(createElement("th", {scope: "row"}, genres[i]), ...counts.map((n, j) => createElement("td", {
      title: `${n} of ${count(total, `${genres[i]} track`)} (${percent(n / total)}) predicted as ${genres[j]}`,
      css: {"--share": percent(.85 * n / total), "--color": `var(${i === j ? "--right" : "--wrong"})`},
    }, n || "·")));
  });
  return createTable("Rows: label; columns: prediction (the top genre).", [cell(), ...headers], rows);
}

function reliabilityTable(bins) {
  const rows = bins.map(([confidence, accuracy, n]) => row(cell(percent(confidence)), cell(percent(accuracy),
    createElement("span", {className: "bar", ariaHidden: "true"},
      createElement("i", {css: {width: percent(accuracy, 1)}}),
      createElement("b", {css: {left: percent(confidence, 1)}}))), cell(n)));
  const caption = "Bar: accuracy; line: confidence. They coincide for a calibrated model.";
  return createTable(caption, ["confidence", "accuracy", "tracks"], rows, "full");
}

function genreTable(scores) {
  const rows = Object.entries(scores).map(([genre, score]) => row(
    createElement("th", {scope: "row"}, genreLabel(genre)), cell(score.n_tracks),
    ...["recall", "precision", "f1"].map(key => cell(percent(score[key]), " ",
      createElement("small", {className: "muted"}, interval(score[`${key}_ci95`], percent))))));
  return createTable("", ["genre", "tracks", "recall", "precision", "F1"], rows, "full");
}

function configuration({config: {features, model}, data, genres, parameters, sha256}) {
  const counts = Object.entries(data.counts).filter(([, n]) => n).map(([subset, n]) => `${n} ${subset}`).join(", ");
  return Object.entries({
    Genres: genres.join(", "),
    "Data set": `${data.name}: ${counts}; split ${data.split_name}`,
    Features: `${features.n_mfcc} MFCCs, windows of ${features.window_seconds} s, ${features.sample_rate} Hz`,
    Architecture: `${model.architecture}, ensemble of ${model.ensemble_size}, ${count(parameters, "parameter")}`,
    "SHA-256": sha256,
  }).map(([term, value]) => definition(term, value));
}

try {
  const card = await loadCard(), subsets = evaluatedSubsets(card);
  $("title").textContent = `Model ${card.name}`;
  $("about").textContent = card.summary;
  for (const subset of subsets) $("metrics").append(...summaryNumbers(subset, card.metrics[subset]));
  if (!subsets.length) $("metrics").textContent = "The card has no metrics: the model hasn't been evaluated.";
  for (const [key, figure] of Object.entries(FIGURES)) {
    const subset = subsets.find(each => card.metrics[each][key]), section = $(key).closest("section");
    section.hidden = !subset;
    if (!subset) continue;
    section.querySelector("h2").append(` (${SUBSETS[subset].toLowerCase()})`);
    $(key).replaceChildren(figure(card.metrics[subset][key], card.genres));
  }
  if (card.min_confidence !== null) $("unknown").textContent = `Where the confidence is below ${card.min_confidence}.`;
  $("configuration").replaceChildren(...configuration(card));
} catch (error) {
  $("about").textContent = error.message;
}
