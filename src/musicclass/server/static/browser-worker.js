// Samples -> Prediction, by the graphs that the server runs, in onnxruntime-web. Models that use the tagger run
// tagger.onnx on patches of the front end, and pooling.onnx, which makes embeddings of windows and tags of its outputs.
import {expose} from "./lib/comlink/comlink.min.mjs";
import {InferenceSession, Tensor, env} from "./lib/ort/ort.wasm.min.mjs";

const CELL_SECONDS = 1, BAND_GROUPS = 8, MAX_SPANS = 5, MAX_WINDOWS = 5, FRACTION = .2, SILENT_DB = 60; // explain.py
const KEPT_TRACKS = 3; // whose features are kept for an explanation
const SWITCHING_COST = 2, MIN_PROBABILITY = 1e-9; // windows.py
const WAVEFORM_PEAKS = 1500, IMAGE_WIDTH = 1200, SILENCE = 2 ** -15, EMBEDDING_SIZE = 200;
env.wasm.wasmPaths = new URL("./lib/ort/", import.meta.url).href;
env.wasm.numThreads = 1;
const SILENT = {genre: null, top_genre: null, confidence: 0, familiarity: 0, probabilities: {}};
const kept = new Map(); // key of a file -> its features
let card, frontend, model, tagger, pooling;

/** Load the graphs of a card. Holds a lock that is released when this worker dies. */
async function load(loaded, lock) {
  card = loaded;
  if (navigator.locks) {
    await new Promise(held => navigator.locks.request(lock, () => { held(); return new Promise(() => {}); }));
  }
  const names = ["frontend", "model", ...card.tags.length ? ["tagger", "pooling"] : []];
  [frontend, model, tagger, pooling] = await Promise.all(names.map(name => InferenceSession.create(
    new URL(`../v1/model/${name}.onnx`, import.meta.url).href, {executionProviders: ["wasm"]})));
}

/** A prediction without its file, for samples (n,); with a `key`, the track's features are kept. */
async function predict(samples, key) {
  const track = await extractFeatures(samples), {tags, duration, scores, path} = track;
  if (key) kept.set(key, track);
  if (kept.size > KEPT_TRACKS) kept.delete(kept.keys().next().value);
  const {probabilities, ...result} = named(scores.probabilities.data, scores.familiarity.data[0]);
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a), seconds = duration / path.length;
  const segments = path.map((genre, i) => ({
    start: i * seconds, end: (i + 1) * seconds,
    ...named(row(scores.window_probabilities, i), scores.window_familiarity.data[i], genre),
  }));
  const waveform_peaks = waveformPeaks(samples), peak = largest(waveform_peaks);
  if (!(peak >= SILENCE && peak < Infinity) || segments.every(({genre}) => genre === null)) {
    throw new Error("nothing but silence or invalid samples; check how it was recorded or exported");
  }
  return {
    ...result, probabilities: Object.fromEntries(sorted), duration, segments, model: card.name, tags, waveform_peaks,
    seconds_lost: 0, // browsers don't count them
  };
}

/** The log-odds of a genre that are lost when one cell, 1 s of a group of bands, is set to its window's mean. */
async function explain(key, decode, genre, onProgress) {
  const track = kept.get(key) ?? await extractFeatures(await decode());
  const {log_mel, windows, starts, means, embeddings, duration} = track, index = card.genres.indexOf(genre);
  const [n_frames, bands] = log_mel.dims, [, length] = windows.dims, size = length * bands;
  const n_cells = Math.max(1, Math.round(duration / CELL_SECONDS));
  const cellOf = frame => Math.floor(frame * n_cells / n_frames);
  const groupOf = band => Math.floor(band * BAND_GROUPS / bands);
  const drops = Array.from({length: n_cells}, () => Array.from({length: BAND_GROUPS}, () => [])); // in each window
  const chosen = chooseWindows(track, index);
  for (const [done, w] of chosen.entries()) {
    if (!means.data[w]) continue; // silent
    const start = Number(starts.data[w]), first = cellOf(start), cells = cellOf(start + length - 1) - first + 1;
    const n = 1 + cells * BAND_GROUPS, batch = repeat(row(windows, w, size), n).data;
    for (let i = 0; i < size; i++) {
      const mask = 1 + (cellOf(start + Math.floor(i / bands)) - first) * BAND_GROUPS + groupOf(i % bands);
      batch[mask * size + i] = means.data[w];
    }
    const scores = await score(new Tensor(batch, [n, length, bands]), repeat(row(embeddings, w), n));
    const [whole, ...occluded] = rows(scores.window_probabilities).map(probabilities => logOdds(probabilities[index]));
    occluded.forEach((value, i) => drops[first + Math.floor(i / BAND_GROUPS)][i % BAND_GROUPS].push(whole - value));
    onProgress((done + 1) / chosen.length);
  }
  const levels = Array(n_cells).fill(-Infinity);
  rows(log_mel).forEach((values, frame) => { levels[cellOf(frame)] = Math.max(levels[cellOf(frame)], ...values); });
  const audible = largest(levels) - SILENT_DB;
  const weights = drops.map((groups, cell) => groups.map(values =>
    levels[cell] < audible ? 0 : sum(values) / Math.max(1, values.length)));
  const times = Array.from({length: n_cells + 1}, (_, i) => i * duration / n_cells);
  const result = {genre, times, weights, frequencies: card.band_edges, log_mel: greyImage(log_mel)};
  return {...result, ...topSpansAndBand(weights, times)};
}

expose({load, predict, explain});

/**
 * The outputs of the front end, embeddings (n_windows, EMBEDDING_SIZE), zeros without the tagger, and tags; the
 * duration in seconds, the scores and the most probable path.
 */
async function extractFeatures(samples) {
  const {patches, patch_weights, ...features} = await frontend.run({samples: new Tensor(samples)});
  const {windows} = features, [n_windows] = windows.dims, duration = samples.length / card.config.features.sample_rate;
  let embeddings = repeat(new Float32Array(EMBEDDING_SIZE), n_windows), tags = [];
  if (tagger) {
    const pooled = await pooling.run({patch_weights, ...await tagger.run({samples: patches})});
    embeddings = pooled.window_embeddings;
    tags = Array.from(pooled.tags.data, (tag, i) => [card.tags[tag], pooled.tag_probabilities.data[i]]);
  }
  const scores = await score(windows, embeddings), path = mostProbablePath(rows(scores.window_probabilities));
  return {...features, embeddings, tags: Object.fromEntries(tags), duration, scores, path};
}

/** As explain._choose_windows: indices of windows. */
function chooseWindows({scores, path}, index) {
  const probabilities = rows(scores.window_probabilities), all = [...path.keys()];
  if (all.length <= MAX_WINDOWS) return all;
  const n_candidates = all.filter(i => path[i] === index && probabilities[i].some(Boolean)).length;
  const order = all.toSorted((a, b) => probabilities[b][index] - probabilities[a][index]);
  const candidates = order.slice(0, Math.max(n_candidates, MAX_WINDOWS)).sort((a, b) => a - b);
  const step = (candidates.length - 1) / (MAX_WINDOWS - 1);
  return Array.from({length: MAX_WINDOWS}, (_, i) => candidates[Math.round(i * step)]);
}

const score = (windows, embeddings) =>
  model.run(model.inputNames.includes("embeddings") ? {windows, embeddings} : {windows});
const row = ({data, dims}, i, size = dims[1]) => data.subarray(i * size, (i + 1) * size);
const rows = matrix => Array.from({length: matrix.dims[0]}, (_, i) => row(matrix, i));
/** Values (m,) as the rows of a tensor (n, m). */
const repeat = (values, n) => new Tensor(
  Float32Array.from({length: n * values.length}, (_, i) => values[i % values.length]), [n, values.length]);
const logOdds = p => Math.log(Math.max(1e-9, p) / Math.max(1e-9, 1 - p));
const sum = values => values.reduce((total, value) => total + value, 0);
const largest = values => values.reduce((a, b) => Math.max(a, b));
const argmax = values => values.indexOf(largest(values));

/** As windows.most_probable_path: the index of the genre of each window, from rows of probabilities. */
export function mostProbablePath(rows, switchingCost = SWITCHING_COST) {
  const logarithms = rows.map(row => Array.from(row, p => Math.log(Math.max(p, MIN_PROBABILITY))));
  const previous = [];
  let [scores] = logarithms;
  for (const row of logarithms.slice(1)) {
    const best = argmax(scores), switched = scores[best] - switchingCost;
    previous.push(scores.map((score, genre) => switched > score ? best : genre));
    scores = scores.map((score, genre) => Math.max(switched, score) + row[genre]);
  }
  const path = [argmax(scores)];
  for (const origins of previous.reverse()) path.unshift(origins[path[0]]);
  return path;
}

/** A track's or segment's fields from its probabilities, and the index of its genre; all zeros: silent. */
function named(probabilities, familiarity, index = argmax(probabilities)) {
  if (!probabilities.some(Boolean)) return SILENT;
  const {genres, min_confidence} = card, top_genre = genres[index], confidence = probabilities[index];
  const isKnown = min_confidence === null ? familiarity >= .5 : confidence >= min_confidence;
  const byGenre = Object.fromEntries(genres.map((genre, i) => [genre, probabilities[i]]));
  return {genre: isKnown ? top_genre : "unknown", top_genre, confidence, familiarity, probabilities: byGenre};
}

/** As Explanation.top_spans and top_band. */
function topSpansAndBand(weights, times) {
  const totals = weights.map(sum), weight = cells => sum(cells.map(cell => totals[cell])), runs = [];
  const order = [...weights.keys()].filter(i => weights[i].some(Boolean)).sort((a, b) => totals[b] - totals[a]);
  for (const cell of order.slice(0, Math.max(1, Math.round(FRACTION * order.length))).sort((a, b) => a - b)) {
    if (runs.at(-1)?.at(-1) === cell - 1) runs.at(-1).push(cell);
    else runs.push([cell]);
  }
  const spans = runs.sort((a, b) => weight(b) - weight(a)).slice(0, MAX_SPANS).sort(([a], [b]) => a - b);
  const top = argmax(weights[0].map((_, group) => sum(weights.map(drop => drop[group]))));
  const top_spans = spans.map(cells => [times[cells[0]], times[cells.at(-1) + 1]]);
  return {top_spans, top_band: card.band_edges.slice(top, top + 2)};
}

/** Log-mel frames as grey values, the highest band first; black is 80 dB below the maximum. */
function greyImage({data, dims: [n_frames, bands]}) {
  const step = Math.ceil(n_frames / IMAGE_WIDTH), width = Math.floor(n_frames / step), loudest = largest(data);
  const grey = Uint8ClampedArray.from({length: width * bands}, (_, i) => {
    const frame = i % width * step, band = bands - 1 - Math.floor(i / width);
    return 255 * (1 + (data[frame * bands + band] - loudest) / 80);
  });
  return {width, height: bands, data: grey};
}

function waveformPeaks(samples) {
  const n = Math.min(WAVEFORM_PEAKS, samples.length), at = i => Math.floor(i * samples.length / n);
  return Array.from({length: n}, (_, i) => largest(samples.subarray(at(i), at(i + 1)).map(Math.abs)));
}
