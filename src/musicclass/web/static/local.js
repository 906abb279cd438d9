// Listening in the browser alone: Web Audio decodes, a worker does the rest (local-worker.js).
import {card} from "./common.js";

const MIN_SECONDS = 1, SILENCE = 2 ** -15, ABSURD = 1e6;
let worker = null, waiting = new Map(), number = 0;

/** Load everything that listening takes; throws an Error when this browser or server can't. */
export async function startHere() {
  if (worker) return;
  const found = await card();
  if (Math.log2(found.config.features.n_fft) % 1) throw new Error("This model's n_fft is no power of two, as browsers need it here.");
  const runtime = await fetch("/static/ort/ort.wasm.min.mjs", {method: "HEAD"});
  if (!runtime.ok) {
    throw new Error("This server came without what browsers need for that; see its README (onnxruntime-web).");
  }
  worker = new Worker("/static/local-worker.js", {type: "module"});
  worker.onmessage = ({data}) => {
    const {tell, resolve, reject} = waiting.get(data.id);
    if (data.share !== undefined) return tell(data.share);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data.value);
  };
  try {
    await new Promise((resolve, reject) => {
      worker.onerror = event => reject(new Error(`The model can't be run in this browser (${event.message}).`));
      askWorker({kind: "start", card: found}).then(resolve, reject);
    });
  } catch (error) {
    worker.terminate();
    worker = null;
    throw error;
  }
}

/** As askServer. */
export async function askHere(file, name, tell, signal) {
  tell("Decoding", .05);
  const samples = await decode(file, name);
  if (signal.aborted) throw new Error("cancelled");
  tell("Listening", .3);
  return askWorker({kind: "hear", samples, name}, share => tell("Listening", .3 + .7 * share));
}

/** As explainOnServer; `tell` hears how far it is. */
export async function explainHere(file, name, tell) {
  return askWorker({kind: "explain", samples: await decode(file, name), name}, tell);
}

function askWorker(what, tell = () => {}) {
  return new Promise((resolve, reject) => {
    const id = number++;
    waiting.set(id, {tell, resolve, reject});
    worker.postMessage({...what, id}, what.samples ? [what.samples.buffer] : []);
  });
}

/** Mono samples at the model's rate. Throws an Error with the reason, in words. */
async function decode(file, name) {
  const {config: {features}, limits} = await card();
  const context = new OfflineAudioContext(1, 1, features.sample_rate); // decoding resamples to its rate
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${name}: not audio, damaged, or of a format that this browser can't decode; try it on the server`);
  }
  const length = Math.min(audio.length, limits.seconds * audio.sampleRate), samples = new Float32Array(length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    const data = audio.getChannelData(channel);
    for (let i = 0; i < length; i++) samples[i] += data[i] / audio.numberOfChannels;
  }
  let peak = 0;
  for (const sample of samples) peak = Math.max(peak, Math.abs(sample)); // NaN if any is
  const seconds = length / audio.sampleRate;
  if (seconds < MIN_SECONDS) throw new Error(`${name}: only ${seconds.toFixed(2)} s long; at least ${MIN_SECONDS} s are needed`);
  if (!(peak <= ABSURD)) throw new Error(`${name}: holds samples that are no sound; export it anew`);
  if (peak < SILENCE) throw new Error(`${name}: nothing but silence; check how it was recorded or exported`);
  return samples;
}
