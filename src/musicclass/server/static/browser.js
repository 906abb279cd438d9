// Classification in the browser alone: Web Audio decodes, a worker runs the model (browser-worker.js).
import {loadCard} from "./api.js";

const MIN_SECONDS = 1, MAX_SECONDS = 1800; // 30 minutes take 1.8 GB of memory and 20 s
let worker = null;

/** Load the model into the browser. Throws an Error with the reason when that isn't possible. */
export async function loadModel() {
  if (worker) return;
  const runtime = await fetch("/static/ort/ort.wasm.min.mjs", {method: "HEAD"});
  if (!runtime.ok) throw new Error("This server lacks onnxruntime-web: install Node.js there, then musicclass again.");
  worker = new Worker("/static/browser-worker.js", {type: "module"});
  const failed = new Promise((_, reject) => {
    worker.onerror = event => reject(new Error(event.message || "its script can't be loaded"));
  });
  try {
    await Promise.race([failed, run("load", {card: await loadCard()})]);
  } catch (error) {
    worker.terminate();
    worker = null;
    throw new Error(`The model can't be run in this browser: ${error.message}`);
  }
}

/** As classifyOnServer. */
export async function classifyInBrowser(file, onProgress, signal) {
  onProgress("Decoding", .1);
  const samples = await decode(file), {limits} = await loadCard();
  signal.throwIfAborted();
  onProgress("Classifying", .4);
  return {...await run("predict", {file: file.name, samples}), limit: Math.min(limits.seconds, MAX_SECONDS)};
}

/** As explainOnServer; calls `onProgress(share)`. */
export const explainInBrowser = async (file, genre, onProgress) =>
  run("explain", {samples: await decode(file), genre}, onProgress);

/** Run a task of the worker. */
function run(task, data, onProgress) {
  const {port1, port2} = new MessageChannel();
  return new Promise((resolve, reject) => {
    port1.onmessage = ({data: {progress, error, value}}) => {
      if (progress !== undefined) return onProgress(progress);
      port1.close();
      if (error) reject(new Error(error));
      else resolve(value);
    };
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
  return samples;
}
