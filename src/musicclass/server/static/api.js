// The client of the server's API.
import {setColors} from "./prediction.js";

const WAVEFORM_PEAKS = 1500, POLL_SECONDS = .2, RETRY_SECONDS = 2, MAX_ATTEMPTS = 3;
const ROOT = new URL("../", import.meta.url); // wherever a proxy puts it

export const address = path => new URL(path, ROOT).href;
/** JSON from the server. Throws an Error with the problem's detail. */
export const fetchJson = async (path, options) => readJson(await send(path, options));

/** As fetch. Throws an Error that is `temporary` where the server can't be reached. */
export const send = (path, options) => fetch(address(path), options).catch(error => {
  if (error.name === "AbortError") throw error;
  throw failure("the server can't be reached; is it still running?", true);
});
const failure = (message, temporary) => Object.assign(new Error(message), {temporary});

async function readJson(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const isTemporary = [502, 503, 504].includes(response.status) || body.title === "no_such_job";
  throw failure(body.detail ?? `the server responded with status ${response.status}`, isTemporary);
}

let card = null;
/** The model's card, fetched once. */
export async function loadCard() {
  card ??= await fetchJson("v1/model");
  setColors(card.colors);
  return card;
}

/** The prediction for a file. Calls `onProgress(text, share)`; waits while the server is away. */
export async function classifyOnServer(file, onProgress, signal) {
  for (let attempts = 1; ;) {
    try {
      return await classifyOnce(file, onProgress, signal);
    } catch (error) {
      if (signal.aborted || !error.temporary) throw error;
      onProgress("Waiting for the server");
      await sleep(RETRY_SECONDS);
      signal.throwIfAborted();
      const isReachable = await send("v1/health", {signal}).then(({ok}) => ok, () => false);
      if (isReachable && ++attempts > MAX_ATTEMPTS) throw error; // it is the file: deleted, or blocked on its way
    }
  }
}

async function classifyOnce(file, onProgress, signal) {
  const {limits} = await loadCard();
  if (file.size > limits.bytes) throw new Error(`larger than ${limits.bytes / 1e6} MB, the server's limit`);
  onProgress("Uploading");
  let {jobs: [job]} = await upload("v1/predict", file, {wait: false, waveform_peaks: WAVEFORM_PEAKS}, signal);
  const path = `v1/jobs/${job.id}`;
  try {
    while (job.state !== "done") {
      onProgress(job.state === "queued" ? "Queued" : "Classifying", job.progress);
      await sleep(POLL_SECONDS);
      job = await fetchJson(path, {signal});
    }
  } finally {
    send(path, {method: "DELETE"}).catch(() => {}); // cancels or forgets it
  }
  if (job.problem) throw failure(job.problem.detail, job.problem.status === 503);
  return {...job.prediction, limit: limits.seconds};
}

/** The songs of the served library that sound most like a file: [{name, genre, similarity}]. */
export const similarSongs = async file => (await upload("v1/similar", file, {top: 10})).songs;

/** What a genre of a file rests on; its `log_mel.data` as bytes. */
export async function explainOnServer(file, genre) {
  const {explanation} = await upload("v1/predict", file, {explain: true, genre});
  explanation.log_mel.data = Uint8Array.from(atob(explanation.log_mel.data), character => character.charCodeAt(0));
  return explanation;
}

async function upload(route, file, query, signal) {
  const path = `${route}?${new URLSearchParams({name: file.name, ...query})}`;
  const options = {method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}, signal};
  for (;;) {
    const response = await send(path, options);
    if (response.status !== 503) return readJson(response);
    await sleep(Number(response.headers.get("Retry-After")) || 1);
  }
}

const sleep = seconds => new Promise(resolve => setTimeout(resolve, 1000 * seconds));
