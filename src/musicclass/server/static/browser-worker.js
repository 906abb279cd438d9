// Samples -> Prediction, by the graphs that the server runs, in onnxruntime-web. Models that use the tagger run
// tagger.onnx on patches of the front end, and pooling.onnx, which makes embeddings of windows and tags of its outputs.
import * as ort from "./ort/ort.wasm.min.mjs";

const CELL_SECONDS = 1, BAND_GROUPS = 8, MAX_SPANS = 5, MAX_WINDOWS = 5, TOP_FRACTION = .2; // as explain.py
const SILENT_DB = 60; // as explain.py
const KEPT_TRACKS = 3; // whose features are kept for an explanation
const SWITCHING_COST = 2, MIN_PROBABILITY = 1e-9; // as windows.py
const WAVEFORM_PEAKS = 1500, IMAGE_WIDTH = 1200, SILENCE = 2 ** -15, EMBEDDING_SIZE = 200, TAGGER_BATCH = 4;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1;
const kept = new Map(); // key of a file -> its features
let card, frontend, model, tagger, pooling;

const tasks = {
  async load(message) {
    card = message.card;
    if (navigator.locks) { // it is released when this worker dies
      await new Promise(held => navigator.locks.request(message.lock, () => { held(); return new Promise(() => {}); }));
    }
    const names = ["frontend", "model", ...card.tags.length ? ["tagger", "pooling"] : []];
    const load = name => ort.InferenceSession.create(
      new URL(`../v1/model/${name}.onnx`, import.meta.url).href, {executionProviders: ["wasm"]});
    [frontend, model, tagger, pooling] = await Promise.all(names.map(load));
  },

  async predict({samples, file, key}) {
    const track = await extractFeatures(samples), {windows, tags, duration, scores, path} = track;
    const seconds = duration / windows.dims[0];
    if (key) kept.set(key, track);
    if (kept.size > KEPT_TRACKS) kept.delete(kept.keys().next().value);
    const {probabilities, ...result} = named(scores.probabilities.data, scores.familiarity.data[0]);
    const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
    const segments = Array.from(scores.window_familiarity.data, (familiarity, i) => ({
      start: i * seconds, end: (i + 1) * seconds, ...named(row(scores.window_probabilities, i), familiarity, path[i]),
    }));
    const waveform_peaks = waveformPeaks(samples), peak = Math.max(...waveform_peaks);
    if (!(peak >= SILENCE && peak < Infinity) || segments.every(({genre}) => genre === null)) {
      throw new Error("nothing but silence or invalid samples; check how it was recorded or exported");
    }
    return {
      file, ...result, probabilities: Object.fromEntries(sorted), duration, segments, model: card.name, tags,
      waveform_peaks, seconds_lost: 0, // browsers don't count them
    };
  },

  /**
   * The log-odds of a genre that are lost when one cell, 1 s of a group of bands, is set to its window's mean.
   * Null without samples where the track's features aren't kept.
   */
  async explain({samples, key, genre}, onProgress) {
    const track = kept.get(key) ?? (samples && await extractFeatures(samples));
    if (!track) return null;
    const {log_mel, windows, starts, means, embeddings, duration} = track;
    const [n_frames, bands] = log_mel.dims, [n_windows, length] = windows.dims, size = length * bands;
    const n_cells = Math.max(1, Math.round(duration / CELL_SECONDS)), index = card.genres.indexOf(genre);
    const cellOf = frame => Math.floor(frame * n_cells / n_frames);
    const groupOf = band => Math.floor(band * BAND_GROUPS / bands);
    const drops = Array.from({length: n_cells}, () => Array(BAND_GROUPS).fill(0)), counts = Array(n_cells).fill(0);
    const chosen = chooseWindows(n_windows, track, index);
    for (const [done, w] of chosen.entries()) {
      if (!means.data[w]) continue; // silent
      const start = Number(starts.data[w]), first = cellOf(start), cells = cellOf(start + length - 1) - first + 1;
      const batch = new Float32Array((1 + cells * BAND_GROUPS) * size);
      for (let at = 0; at < batch.length; at += size) batch.set(row(windows, w, size), at);
      for (let i = 0; i < size; i++) {
        const mask = 1 + (cellOf(start + Math.floor(i / bands)) - first) * BAND_GROUPS + groupOf(i % bands);
        batch[mask * size + i] = means.data[w];
      }
      const n = batch.length / size, repeated = Array(n).fill([...row(embeddings, w)]).flat();
      const scores = (await score(tensor(batch, n, length), tensor(repeated, n))).window_probabilities;
      const [whole, ...occluded] = Array.from({length: n}, (_, i) => logOdds(row(scores, i)[index]));
      occluded.forEach((value, i) => { drops[first + Math.floor(i / BAND_GROUPS)][i % BAND_GROUPS] += whole - value; });
      for (let cell = first; cell < first + cells; cell++) counts[cell] += 1;
      onProgress((done + 1) / chosen.length);
    }
    const levels = Array(n_cells).fill(-Infinity);
    for (let frame = 0; frame < n_frames; frame++) {
      levels[cellOf(frame)] = Math.max(levels[cellOf(frame)], ...row(log_mel, frame));
    }
    const audible = levels.reduce((a, b) => Math.max(a, b)) - SILENT_DB;
    drops.forEach((drop, cell) => { if (levels[cell] < audible) drop.fill(0); });
    const weights = drops.map((drop, cell) => drop.map(value => value / Math.max(1, counts[cell])));
    const times = Array.from({length: n_cells + 1}, (_, i) => i * duration / n_cells);
    const frequencies = card.band_edges, image = greyImage(log_mel);
    return {genre, times, weights, frequencies, log_mel: image, ...topSpansAndBand(weights, times)};
  },
};

onmessage = async ({data, ports: [port]}) => {
  try {
    port.postMessage({value: await tasks[data.task](data, progress => port.postMessage({progress}))});
  } catch (error) {
    port.postMessage({error: error.message ?? String(error)});
  }
};

/**
 * The outputs of the front end, embeddings (n_windows, EMBEDDING_SIZE), zeros without the tagger, and tags; the
 * duration in seconds, the scores and the most probable path.
 */
async function extractFeatures(samples) {
  const {patches, patch_weights, ...features} = await frontend.run({samples: tensor(samples)}), {windows} = features;
  const [n_windows] = windows.dims, duration = samples.length / card.config.features.sample_rate;
  let embeddings = tensor(Array(n_windows * EMBEDDING_SIZE).fill(0), n_windows), tags = [];
  if (tagger) {
    const pooled = await pooling.run({patch_weights, ...await runTagger(patches)});
    embeddings = pooled.window_embeddings;
    tags = Array.from(pooled.tags.data, (tag, i) => [card.tags[tag], pooled.tag_probabilities.data[i]]);
  }
  const scores = await score(windows, embeddings);
  const path = mostProbablePath(Array.from({length: n_windows}, (_, i) => row(scores.window_probabilities, i)));
  return {...features, embeddings, tags: Object.fromEntries(tags), duration, scores, path};
}

/** As explain._choose_windows. */
function chooseWindows(n, {scores: {window_probabilities}, path}, index) {
  const all = Array.from({length: n}, (_, i) => i), probability = i => row(window_probabilities, i)[index];
  if (n <= MAX_WINDOWS) return all;
  const n_candidates = path.filter((genre, i) => genre === index && row(window_probabilities, i).some(Boolean)).length;
  const order = all.toSorted((a, b) => probability(b) - probability(a));
  const candidates = order.slice(0, Math.max(n_candidates, MAX_WINDOWS)).sort((a, b) => a - b);
  const step = (candidates.length - 1) / (MAX_WINDOWS - 1);
  return Array.from({length: MAX_WINDOWS}, (_, i) => candidates[Math.round(i * step)]);
}

async function runTagger(patches) {
  const [n, size] = patches.dims, batches = [];
  for (let i = 0; i < n; i += TAGGER_BATCH) {
    const samples = patches.data.subarray(i * size, (i + TAGGER_BATCH) * size);
    batches.push(await tagger.run({samples: tensor(samples, Math.min(TAGGER_BATCH, n - i))}));
  }
  const join = name => tensor(batches.flatMap(batch => [...batch[name].data]), n);
  return {embeddings: join("embeddings"), tag_logits: join("tag_logits")};
}

/** Values as a float32 tensor; the last dimension follows from the number of values. */
const tensor = (values, ...dims) => new ort.Tensor("float32", values,
  [...dims, values.length / dims.reduce((product, n) => product * n, 1)]);
const score = (windows, embeddings) =>
  model.run(model.inputNames.includes("embeddings") ? {windows, embeddings} : {windows});
const row = ({data, dims}, i, size = dims[1]) => data.subarray(i * size, (i + 1) * size);
const logOdds = p => Math.log(Math.max(1e-9, p) / Math.max(1e-9, 1 - p));
const sum = values => values.reduce((total, value) => total + value, 0);

const argmax = values => values.indexOf(Math.max(...values));

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
  const confidence = probabilities[index], top_genre = card.genres[index];
  if (!probabilities.some(Boolean)) {
    return {genre: null, top_genre: null, confidence: 0, familiarity: 0, probabilities: {}};
  }
  const known = card.min_confidence === null ? familiarity >= .5 : confidence >= card.min_confidence;
  const byGenre = Object.fromEntries(card.genres.map((genre, i) => [genre, probabilities[i]]));
  return {genre: known ? top_genre : "unknown", top_genre, confidence, familiarity, probabilities: byGenre};
}

/** As Explanation.top_spans and top_band. */
function topSpansAndBand(weights, times) {
  const totals = weights.map(sum), runs = [];
  const order = totals.map((_, i) => i).filter(i => weights[i].some(Boolean)).sort((a, b) => totals[b] - totals[a]);
  for (const cell of order.slice(0, Math.max(1, Math.round(TOP_FRACTION * order.length))).sort((a, b) => a - b)) {
    if (runs.at(-1)?.at(-1) === cell - 1) runs.at(-1).push(cell);
    else runs.push([cell]);
  }
  const weight = cells => sum(cells.map(cell => totals[cell]));
  const largest = runs.sort((a, b) => weight(b) - weight(a)).slice(0, MAX_SPANS).sort(([a], [b]) => a - b);
  const bands = weights[0].map((_, group) => sum(weights.map(drop => drop[group])));
  const top = bands.indexOf(Math.max(...bands)), top_band = card.band_edges.slice(top, top + 2);
  return {top_spans: largest.map(cells => [times[cells[0]], times[cells.at(-1) + 1]]), top_band};
}

/** Log-mel frames as grey values, the highest band first; black is 80 dB below the maximum. */
function greyImage({data, dims: [n_frames, bands]}) {
  const step = Math.ceil(n_frames / IMAGE_WIDTH), width = Math.floor(n_frames / step);
  const loudest = data.reduce((a, b) => Math.max(a, b)), grey = new Uint8ClampedArray(width * bands);
  for (let column = 0; column < width; column++) {
    for (let band = 0; band < bands; band++) {
      grey[(bands - 1 - band) * width + column] = 255 * (1 + (data[column * step * bands + band] - loudest) / 80);
    }
  }
  return {width, height: bands, data: grey};
}

function waveformPeaks(samples) {
  const n = Math.min(WAVEFORM_PEAKS, samples.length);
  return Array.from({length: n}, (_, i) =>
    samples.subarray(Math.floor(i * samples.length / n), Math.floor((i + 1) * samples.length / n))
      .reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0));
}
