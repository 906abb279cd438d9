// Classification in the browser alone: Web Audio decodes, a worker runs the model (browser-worker.js).
import {address, loadCard} from "./api.js";
import {proxy, transfer, wrap} from "./lib/comlink/comlink.min.mjs";

const MIN_SECONDS = 1, MAX_SECONDS = 1800; // 30 minutes take 1.8 GB of memory and 20 s
const LACKING = "onnxruntime-web can't be loaded; if the server is running, install musicclass there again";
let loading = null;

/** Load the model into the browser. Throws an Error with the reason when that isn't possible. */
export const loadModel = () => loadCard().then(card => loading ??= startWorker(card));

/** A function that runs tasks in a new worker. It throws once the worker dies; the next `loadModel` starts another. */
async function startWorker(card) {
  const lock = `musicclass ${Math.random()}`, pending = new Set(); // functions that reject tasks
  const worker = new Worker(address("static/browser-worker.js"), {type: "module"}), tasks = wrap(worker);
  let death = null;
  const stop = text => {
    if (death) return;
    death = new Error(text);
    loading = null;
    worker.terminate();
    pending.forEach(reject => reject(death));
  };
  const run = (task, ...values) => new Promise((resolve, reject) => {
    if (death) throw death;
    pending.add(reject);
    tasks[task](...values).finally(() => pending.delete(reject))
      .then(resolve, error => reject(new Error(error.message ?? error))); // WebAssembly may throw numbers
  });
  worker.onerror = event => stop(event.message || LACKING);
  await run("load", card, lock).catch(({message}) => {
    stop(message);
    throw new Error(`The model can't be run in this browser: ${message}`);
  });
  navigator.locks?.request(lock, () => stop("the browser stopped it, perhaps for lack of memory; try again"));
  return run;
}

/** As classifyOnServer. */
export async function classifyInBrowser(file, onProgress, signal) {
  onProgress("Decoding", .1);
  const run = await loadModel(), samples = await decode(file), {limits} = await loadCard();
  signal.throwIfAborted();
  onProgress("Classifying", .4);
  const prediction = await run("predict", samples, keyOf(file));
  return {file: file.name, ...prediction, limit: Math.min(limits.seconds, MAX_SECONDS)};
}

/** A prediction for the last seconds of live audio: mono samples at a rate in Hz. */
export async function classifySamples(samples, rate) {
  const {config: {features: {sample_rate}}} = await loadCard(), run = await loadModel();
  const context = new OfflineAudioContext(1, Math.floor(samples.length / rate * sample_rate), sample_rate);
  const buffer = new AudioBuffer({length: samples.length, sampleRate: rate});
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, {buffer});
  source.connect(context.destination);
  source.start();
  return run("predict", (await context.startRendering()).getChannelData(0));
}

/** As explainOnServer; calls `onProgress(share)`. */
export async function explainInBrowser(file, genre, onProgress) {
  const run = await loadModel();
  return run("explain", keyOf(file), proxy(() => decode(file)), genre, proxy(onProgress));
}

const keyOf = ({name, size, lastModified}) => [name, size, lastModified].join("/");

/** Mono samples (n,) at the model's sample rate, which a worker takes without a copy. */
async function decode(file) {
  const {config: {features}, limits} = await loadCard();
  const context = new OfflineAudioContext(1, 1, features.sample_rate); // decodeAudioData resamples to its rate
  const audio = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error("not audio, damaged, or in a format that this browser can't decode; classify it on the server");
  });
  if (audio.duration < MIN_SECONDS) {
    throw new Error(`only ${audio.duration.toFixed(2)} s long; at least ${MIN_SECONDS} s are needed`);
  }
  const length = Math.min(limits.seconds, MAX_SECONDS) * audio.sampleRate;
  const channels = Array.from({length: audio.numberOfChannels}, (_, i) => audio.getChannelData(i).subarray(0, length));
  const [left, right] = channels, power = sign => left.reduce((sum, x, i) => sum + (x + sign * right[i]) ** 2, 0);
  const isOpposite = channels.length === 2 && power(-1) > 4 * power(1); // in phase, as in audio._downmixer
  if (isOpposite) right.forEach((x, i) => { right[i] = -x; });
  const samples = left.map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
  const offset = samples.reduce((sum, x) => sum + x, 0) / samples.length;
  const centered = Math.abs(offset) > .02 ? samples.map(x => x - offset) : samples; // as audio.DC_OFFSET
  return transfer(centered, [centered.buffer]);
}
