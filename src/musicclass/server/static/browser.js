// Classification in the browser alone: Web Audio decodes, a worker runs the model (browser-worker.js).
import {address, loadCard, send} from "./api.js";

const MIN_SECONDS = 1, MAX_SECONDS = 1800; // 30 minutes take 1.8 GB of memory and 20 s
let worker = null, loading = null, pending = new Set(); // functions that reject tasks

/** Load the model into the browser. Throws an Error with the reason when that isn't possible. */
export const loadModel = () => loading ??= startWorker().catch(error => {
  stopWorker(error.message);
  throw error;
});

async function startWorker() {
  const runtime = await send("static/ort/ort.wasm.min.mjs", {method: "HEAD"}), card = await loadCard();
  if (!runtime.ok) throw new Error("This server lacks onnxruntime-web: install Node.js there, then musicclass again.");
  const started = worker = new Worker(address("static/browser-worker.js"), {type: "module"});
  const lock = `musicclass ${Math.random()}`, stop = text => { if (worker === started) stopWorker(text); };
  worker.onerror = event => stop(event.message || "its script can't be loaded");
  await run("load", {card, lock}).catch(({message}) => {
    throw new Error(`The model can't be run in this browser: ${message}`);
  });
  navigator.locks?.request(lock, () => stop("the browser stopped it, perhaps for lack of memory; try again"));
}

/** Reject what is pending; the next task starts a new worker. */
function stopWorker(text) {
  worker?.terminate();
  const rejected = pending;
  worker = loading = null;
  pending = new Set();
  rejected.forEach(reject => reject(new Error(text)));
}

/** As classifyOnServer. */
export async function classifyInBrowser(file, onProgress, signal) {
  onProgress("Decoding", .1);
  await loadModel();
  const samples = await decode(file), {limits} = await loadCard();
  signal.throwIfAborted();
  onProgress("Classifying", .4);
  return {...await run("predict", {file: file.name, key: keyOf(file), samples}), limit: Math.min(limits.seconds, MAX_SECONDS)};
}

/** A prediction for the last seconds of live audio: mono samples at a rate in Hz. */
export async function classifySamples(samples, rate) {
  const {config: {features}} = await loadCard(), length = Math.floor(samples.length / rate * features.sample_rate);
  const context = new OfflineAudioContext(1, length, features.sample_rate);
  const buffer = context.createBuffer(1, samples.length, rate);
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, {buffer});
  source.connect(context.destination);
  source.start();
  return run("predict", {file: "live", samples: (await context.startRendering()).getChannelData(0)});
}

/** As explainOnServer; calls `onProgress(share)`. */
export async function explainInBrowser(file, genre, onProgress) {
  await loadModel();
  const key = keyOf(file), explanation = await run("explain", {key, genre}, onProgress);
  return explanation ?? run("explain", {samples: await decode(file), genre}, onProgress);
}

const keyOf = ({name, size, lastModified}) => [name, size, lastModified].join("/");

/** Run a task of the worker. */
function run(task, data, onProgress) {
  const {port1, port2} = new MessageChannel();
  return new Promise((resolve, reject) => {
    pending.add(reject);
    port1.onmessage = ({data: {progress, error, value}}) => {
      if (progress !== undefined) return onProgress(progress);
      port1.close();
      pending.delete(reject);
      if (error) reject(new Error(error));
      else resolve(value);
    };
    if (!worker) return reject(new Error("the worker has stopped; try again"));
    worker.postMessage({task, ...data}, [port2, ...(data.samples ? [data.samples.buffer] : [])]);
  });
}

/** Mono samples (n,) at the model's sample rate. */
async function decode(file) {
  const {config: {features}, limits} = await loadCard();
  const context = new OfflineAudioContext(1, 1, features.sample_rate); // decodeAudioData resamples to its rate
  const audio = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error("not audio, damaged, or in a format that this browser can't decode; classify it on the server");
  });
  if (audio.duration < MIN_SECONDS) {
    throw new Error(`only ${audio.duration.toFixed(2)} s long; at least ${MIN_SECONDS} s are needed`);
  }
  const length = Math.min(audio.length, limits.seconds * audio.sampleRate, MAX_SECONDS * audio.sampleRate);
  const channels = Array.from({length: audio.numberOfChannels}, (_, i) => audio.getChannelData(i));
  const samples = new Float32Array(length);
  const [left, right] = channels, power = (sign) => left.reduce((sum, x, i) => sum + (x + sign * right[i]) ** 2, 0);
  const sign = channels.length === 2 && power(-1) > 4 * power(1) ? -1 : 1;  // as audio._downmixer: opposite phase
  for (const channel of channels) {
    const weight = (channel === left ? 1 : sign) / channels.length;
    for (let i = 0; i < length; i++) samples[i] += weight * channel[i];
  }
  const offset = samples.reduce((sum, x) => sum + x, 0) / length;
  return Math.abs(offset) > 0.02 ? samples.map((x) => x - offset) : samples;  // as audio.DC_OFFSET
}
