// Samples -> an answer, as musicclass/classifier.py, confidence.py and explain.py give it.
import * as ort from "./ort/ort.wasm.min.mjs";
import {groupEdges, logMel, mfcc, scaleWindow, windowStarts} from "./features.js";

const BATCH = 32, CELL_SECONDS = 1, BAND_GROUPS = 8, STRETCHES = 5, STEEPNESS = 6, STRANGE = 8, SLOPE = .3, KNOWN = .5, N_STATISTICS = 8, PEAKS = 1500, PEAK_SAMPLES = 441;
const PICTURE_WIDTH = 1200;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1;
let session, model;

const tasks = {
  async start({card}) {
    model = card;
    const network = await fetch("/v1/model/network");
    if (!network.ok) throw new Error("the model can't be loaded; is the server still running?");
    session = await ort.InferenceSession.create(new Uint8Array(await network.arrayBuffer()), {executionProviders: ["wasm"]});
  },

  async hear({samples, name}, tell) {
    const {features} = model.config, duration = samples.length / features.sample_rate;
    const frames = logMel(samples, features, share => tell(.5 * share));
    return {...await told(frames, duration, name, share => tell(.5 + .5 * share)), peaks: peaksOf(samples)};
  },

  async explain({samples, name}, tell) {
    const {features} = model.config, duration = samples.length / features.sample_rate;
    const frames = logMel(samples, features);
    return explain(frames, duration, (await told(frames, duration, name, () => {})).best_guess, tell);
  },
};

onmessage = async ({data}) => {
  try {
    const value = await tasks[data.kind](data, share => postMessage({id: data.id, share}));
    postMessage({id: data.id, value: value ?? null});
  } catch (error) {
    postMessage({id: data.id, error: error.message || String(error)});
  }
};

/** A track's prediction. */
async function told(frames, duration, name, tell) {
  const {features} = model.config, {n_bands} = features, windows = windowStarts(frames.length / n_bands, features)
    .map(start => {
      const {values, length, sounds} = scaleWindow(frames, start, features);
      return sounds ? {length, data: mfcc(values, length, features)} : null;
    });
  const sounding = windows.filter(Boolean);
  if (!sounding.length) throw new Error(`${name}: nothing but silence; check how it was recorded or exported`);
  const logits = await answers(sounding, tell), rows = logits.map(softmax), distances = sounding.map(distance);
  const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
  const together = model.genres.map((_, genre) => mean(logits.map(row => row[genre])));
  const overall = softmax(together), best = overall.indexOf(Math.max(...overall));
  const {familiarity, confidence, known} = worth(together, overall, mean(distances));
  const order = model.genres.map((_, i) => i).sort((a, b) => overall[b] - overall[a]);
  const part = duration / windows.length;
  let next = 0;
  const segments = windows.map((window, i) => {
    const times = {start: i * part, end: (i + 1) * part};
    if (!window) return {...times, genre: null, best_guess: null, confidence: 0, probabilities: {}};
    const row = rows[next], told = worth(logits[next], row, distances[next]);
    next += 1;
    const guess = model.genres[row.indexOf(Math.max(...row))];
    const shares = Object.fromEntries(model.genres.map((genre, k) => [genre, row[k]]));
    return {...times, genre: told.known ? guess : "unknown", best_guess: guess, confidence: told.confidence, probabilities: shares};
  });
  return {
    file: name, genre: known ? model.genres[best] : "unknown", best_guess: model.genres[best], confidence, familiarity,
    probabilities: Object.fromEntries(order.map(i => [model.genres[i], overall[i]])), duration, segments, model: model.name,
  };
}

/** Logits for each window of MFCCs, all of one length. */
async function answers(windows, tell = () => {}) {
  const {n_mfcc} = model.config.features, rows = [];
  for (let at = 0; at < windows.length; at += BATCH) {
    const some = windows.slice(at, at + BATCH), {length} = some[0], data = new Float32Array(some.length * length * n_mfcc);
    some.forEach((window, i) => data.set(window.data, i * length * n_mfcc));
    const input = new ort.Tensor("float32", data, [some.length, length, n_mfcc]);
    const output = (await session.run({[session.inputNames[0]]: input}))[session.outputNames[0]].data;
    const genres = model.genres.length;
    for (let i = 0; i < some.length; i++) rows.push([...output.slice(i * genres, (i + 1) * genres)]);
    tell((at + some.length) / windows.length);
  }
  return rows;
}

/** Calibrated probabilities. */
function softmax(logits) {
  const {temperature, biases} = model.confidence, scaled = logits.map((logit, i) => logit / temperature + (biases[i] ?? 0));
  const high = Math.max(...scaled), powers = scaled.map(value => Math.exp(value - high));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(power => power / sum);
}

/** Squared Mahalanobis distance of a window's statistics from the music that the model knows, 1 at its edge. */
function distance({data, length}) {
  const known = model.confidence.familiarity;
  if (!known) return 0;
  const {n_mfcc} = model.config.features, count = N_STATISTICS, means = [], spreads = [], steps = [];
  const deviation = values => {
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return Math.log(Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length) + .1);
  };
  for (let k = 0; k < count; k++) {
    const values = Float64Array.from({length}, (_, frame) => data[frame * n_mfcc + k]);
    means.push(values.reduce((a, b) => a + b, 0) / length);
    spreads.push(deviation(values));
    steps.push(deviation(Float64Array.from({length: length - 1}, (_, i) => values[i + 1] - values[i])));
  }
  const off = [...means, ...spreads, ...steps].map((value, i) => value - known.centre[i]);
  return squared(off, known.precision) / known.half;
}

const squared = (off, precision) =>
  off.reduce((sum, a, i) => sum + a * precision[i].reduce((part, p, j) => part + p * off[j], 0), 0);

/** Familiarity, confidence, and whether a genre is named, as in confidence.py. */
function worth(logits, probabilities, distance) {
  const familiarity = familiar(logits, distance);
  const confidence = Math.max(...probabilities) * Math.min(1, familiarity / KNOWN);
  return {familiarity, confidence, known: model.min_confidence === null ? familiarity >= KNOWN : confidence >= model.min_confidence};
}

function familiar(logits, distance) {
  const {answers} = model.confidence;
  if (!answers) return 1 / (1 + distance ** STEEPNESS);
  const from = (means, precision) => squared(logits.map((value, i) => value - means[i]), precision);
  const nearest = Math.min(...answers.means.map(means => from(means, answers.within)));
  const nearness = from(answers.centre, answers.overall) - nearest - STRANGE * distance ** 2;
  return 1 / (1 + Math.exp(-SLOPE * (nearness - answers.edge)));
}

/** What the answer rests on: cover one cell after the other, and see what is lost of the genre's log-odds. */
async function explain(frames, duration, genre, tell) {
  const {features} = model.config, {n_bands} = features, count = frames.length / n_bands;
  const cells = Math.max(1, Math.round(duration / CELL_SECONDS)), index = model.genres.indexOf(genre);
  const timeOf = frame => Math.floor(frame * cells / count), bandOf = band => Math.floor(band * BAND_GROUPS / n_bands);
  const lost = Array.from({length: cells}, () => new Array(BAND_GROUPS).fill(0)), looks = new Array(cells).fill(0);
  const odds = p => { const q = Math.min(1 - 1e-9, Math.max(1e-9, p)); return Math.log(q / (1 - q)); };
  const starts = windowStarts(count, features);
  for (const [number, start] of starts.entries()) {
    const {values, length, sounds} = scaleWindow(frames, start, features);
    if (!sounds) continue;
    const mean = values.reduce((a, b) => a + b, 0) / values.length, holes = [{length, data: mfcc(values, length, features)}];
    const first = timeOf(start), last = timeOf(start + length - 1);
    for (let cell = first; cell <= last; cell++) {
      for (let group = 0; group < BAND_GROUPS; group++) {
        const covered = values.slice();
        for (let frame = 0; frame < length; frame++) {
          if (timeOf(start + frame) !== cell) continue;
          for (let band = 0; band < n_bands; band++) if (bandOf(band) === group) covered[frame * n_bands + band] = mean;
        }
        holes.push({length, data: mfcc(covered, length, features)});
      }
    }
    const rows = (await answers(holes, share => tell((number + share) / starts.length))).map(softmax);
    const whole = odds(rows[0][index]);
    for (let cell = first; cell <= last; cell++) {
      looks[cell] += 1;
      for (let group = 0; group < BAND_GROUPS; group++) {
        lost[cell][group] += whole - odds(rows[1 + (cell - first) * BAND_GROUPS + group][index]);
      }
    }
  }
  const weights = lost.map((row, cell) => row.map(value => value / Math.max(1, looks[cell])));
  const times = Array.from({length: cells + 1}, (_, i) => i * duration / cells);
  const frequencies = groupEdges(features, BAND_GROUPS), seconds = mattering(weights, times);
  const bands = weights[0].map((_, group) => weights.reduce((sum, row) => sum + row[group], 0));
  const best = bands.indexOf(Math.max(...bands)), region = [frequencies[best], frequencies[best + 1]];
  const clock = s => `${Math.floor(Math.round(s) / 60)}:${String(Math.round(s) % 60).padStart(2, "0")}`;
  const spans = seconds.map(([from, to]) => `${clock(from)}-${clock(to)}`).join(", ");
  const words = `${genre} rests most on ${spans}, and on ${region[0].toFixed(0)}-${region[1].toFixed(0)} Hz`;
  return {words, genre, seconds, region, times, frequencies, weights, log_mel: picture(frames, n_bands)};
}

/** Of the fifth of the cells that matters most, adjoining ones as one, the stretches of greatest weight. */
function mattering(weights, times) {
  const totals = weights.map(row => row.reduce((a, b) => a + b, 0));
  const most = totals.map((_, i) => i).sort((a, b) => totals[b] - totals[a])
    .slice(0, Math.max(1, Math.round(.2 * totals.length))).sort((a, b) => a - b);
  const spans = [];
  for (const cell of most) {
    const last = spans[spans.length - 1];
    if (last && last.end === cell) last.end = cell + 1, last.weight += totals[cell];
    else spans.push({start: cell, end: cell + 1, weight: totals[cell]});
  }
  return spans.sort((a, b) => b.weight - a.weight).slice(0, STRETCHES).sort((a, b) => a.start - b.start)
    .map(({start, end}) => [times[start], times[end]]);
}

function picture(frames, bands) {
  const count = frames.length / bands, width = Math.min(PICTURE_WIDTH, count), bytes = new Uint8Array(width * bands);
  const high = frames.reduce((a, b) => Math.max(a, b), -Infinity);
  for (let column = 0; column < width; column++) {
    const from = Math.floor(column * count / width), to = Math.floor((column + 1) * count / width);
    for (let band = 0; band < bands; band++) {
      let value = -Infinity;
      for (let frame = from; frame < to; frame++) value = Math.max(value, frames[frame * bands + band]);
      bytes[(bands - 1 - band) * width + column] = 255 * Math.max(0, Math.min(1, (value - high) / 80 + 1));
    }
  }
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return {width, height: bands, data: btoa(text)};
}

function peaksOf(samples) {
  const peaks = [];
  for (let start = 0; start < samples.length; start += PEAK_SAMPLES) {
    peaks.push(samples.subarray(start, start + PEAK_SAMPLES).reduce((most, sample) => Math.max(most, Math.abs(sample)), 0));
  }
  const count = Math.min(PEAKS, peaks.length);
  return Array.from({length: count}, (_, i) =>
    Math.max(...peaks.slice(Math.floor(i * peaks.length / count), Math.floor((i + 1) * peaks.length / count))));
}
