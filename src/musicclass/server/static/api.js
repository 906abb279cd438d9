// The client of the server's API.
import {setColors} from "./prediction.js";

const WAVEFORM_PEAKS = 1500, POLL_SECONDS = .2;

/** JSON from the server. Throws an Error with the problem's detail. */
export const fetchJson = async (url, options) => readJson(await send(url, options));

const send = (url, options) => fetch(url, options).catch(error => {
  throw error.name === "AbortError" ? error : new Error("the server can't be reached; is it still running?");
});

async function readJson(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail ?? `the server responded with status ${response.status}`);
  return body;
}

let card = null;
/** The model's card, fetched once. */
export const loadCard = () => card ??= fetchJson("/v1/model").then(loaded => {
  setColors(loaded.colors);
  return loaded;
});

/** The prediction for a file, with `waveform_peaks`. Calls `onProgress(text, share)`. */
export async function classifyOnServer(file, onProgress, signal) {
  const {limits} = await loadCard();
  if (file.size > limits.bytes) throw new Error(`larger than ${limits.bytes / 1e6} MB, the server's limit`);
  onProgress("Uploading");
  let {jobs: [job]} = await upload(file, {wait: false, waveform_peaks: WAVEFORM_PEAKS}, signal);
  try {
    while (job.state !== "done") {
      onProgress(job.state === "queued" ? "Queued" : "Classifying", job.progress);
      await sleep(POLL_SECONDS);
      job = await fetchJson(job.href, {signal});
    }
  } finally {
    fetch(job.href, {method: "DELETE"}).catch(() => {}); // cancels or forgets it
  }
  if (job.problem) throw new Error(job.problem.detail);
  return {...job.prediction, limit: limits.seconds};
}

/** What the prediction for a file rests on; its `log_mel.data` as bytes. */
export async function explainOnServer(file) {
  const {explanation} = await upload(file, {explain: true});
  explanation.log_mel.data = Uint8Array.from(atob(explanation.log_mel.data), character => character.charCodeAt(0));
  return explanation;
}

async function upload(file, query, signal) {
  const url = `/v1/predict?${new URLSearchParams({name: file.name, ...query})}`;
  const options = {method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}, signal};
  for (;;) {
    const response = await send(url, options);
    if (response.status !== 503) return readJson(response);
    await sleep(Number(response.headers.get("Retry-After")) || 1);
  }
}

const sleep = seconds => new Promise(resolve => setTimeout(resolve, 1000 * seconds));
