// Live classification: the microphone or the sound of a tab, second by second, in this browser alone.
import {address} from "./api.js";
import {classifySamples, loadModel} from "./browser.js";
import {$} from "./dom.js";
import Alpine from "./ui.js";

const SECONDS = 10, MIN_SECONDS = 3, SILENCE_DB = -60; // what is classified, and the level (RMS) below which nothing is
const RIBBON_SECONDS = 60, SPOKEN_SECONDS = 5; // the least time between announcements
const RAW = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
const {mediaDevices} = navigator;
const live = Alpine.reactive({
  isOpen: false, problem: "", level: -80, seconds: 0, spoken: "",
  answer: {}, // a prediction, or {message}; with a genre of null for silence
  results: [], // {seconds, genre, confidence} of the last minute
});
let session = null;

/** What songs.html needs to call `add(files)` with recordings that are kept. */
export const onRecording = add => ({
  live, hasTabs: mediaDevices?.getSupportedConstraints().suppressLocalAudioPlayback, // Firefox: no sound
  listen: () => listen(add, () => mediaDevices.getUserMedia({audio: RAW})),
  listenToTab: () => listen(add, () => mediaDevices.getDisplayMedia({video: true, audio: RAW})),
  stopListening: stop,
});

async function listen(add, open) {
  if (session) return;
  const current = session = {add, blocks: [], chunks: [], start: new Date(), busy: true};
  live.problem = "";
  try {
    if (!mediaDevices) throw new Error("browsers allow it over https or on localhost only");
    current.stream = await open();
    await record(current);
  } catch ({message}) {
    live.problem = `Can't listen (${message}); allow it for this page, or choose a file.`;
    return stop(false);
  }
  Object.assign(live, {isOpen: true, seconds: 0, results: []});
  show({message: "Loading the model into this browser …"});
  Alpine.nextTick(() => $("keep").focus());
  current.timer = setInterval(() => classifyLast(current), 1000);
  await loadModel().then(() => { current.busy = false; })
    .catch(({message}) => show({message: `Recording, without genres: ${message}`}));
}

async function record(current) {
  const {stream, blocks, chunks} = current, tracks = stream.getAudioTracks(), audio = new MediaStream(tracks);
  if (!tracks.length) throw new Error("it has no sound; share a tab with its sound");
  const context = current.context = new AudioContext();
  await context.audioWorklet.addModule(address("static/capture.js"));
  const capture = new AudioWorkletNode(context, "capture", {channelCount: 1, channelCountMode: "explicit"});
  capture.port.onmessage = ({data}) => {
    blocks.push(data);
    if (blocks.length * data.length > SECONDS * context.sampleRate) blocks.shift();
  };
  context.createMediaStreamSource(audio).connect(capture);
  const recorder = new MediaRecorder(audio);
  recorder.ondataavailable = ({data}) => chunks.push(data);
  recorder.start();
  Object.assign(current, {recorder, stopped: new Promise(resolve => { recorder.onstop = resolve; })});
  tracks[0].onended = () => stop(true); // the tab was closed, or the device unplugged
}

async function classifyLast(current) {
  const {context, blocks, start, busy} = current;
  const samples = new Float32Array(await new Blob(blocks).arrayBuffer()), last = samples.subarray(-context.sampleRate);
  const power = last.reduce((sum, x) => sum + x * x, 1e-12) / Math.max(1, last.length);
  Object.assign(live, {level: 10 * Math.log10(power), seconds: Math.round((Date.now() - start) / 1000)});
  if (busy) return;
  current.busy = true;
  const answer = await classify(samples, context).catch(({message}) => ({message}));
  current.busy = false;
  if (session === current) show(answer);
}

async function classify(samples, {state, sampleRate}) {
  if (state !== "running" && live.seconds > MIN_SECONDS) { // Firefox, without a sound device
    return {message: "Recording, without genres: is there a loudspeaker or headphones?"};
  }
  if (samples.length < MIN_SECONDS * sampleRate) return {message: "Listening …"};
  return live.level < SILENCE_DB ? {message: "silence", genre: null} : classifySamples(samples, sampleRate);
}

function show(answer) {
  live.answer = Object.freeze(answer);
  const {genre, confidence = 0} = answer, result = {seconds: live.seconds, genre, confidence};
  if (genre !== undefined) live.results = [...live.results, result].slice(-RIBBON_SECONDS);
  Alpine.nextTick(announce);
}

/** Let screen readers say what has changed, but not every second. */
const announce = Alpine.throttle(() => { live.spoken = $("live-genre").textContent; }, 1000 * SPOKEN_SECONDS);

async function stop(keep) {
  const {add, recorder, stopped, stream, context, timer, chunks, start} = session;
  clearInterval(timer);
  session = null;
  live.isOpen = false;
  Alpine.nextTick(() => $("listen").focus());
  if (recorder?.state === "recording") recorder.stop(); // it stops by itself where its tracks end
  await stopped;
  stream?.getTracks().forEach(track => track.stop());
  context?.close();
  if (!keep) return;
  const {type} = chunks[0], time = start.toTimeString().slice(0, 8).replaceAll(":", ".");
  const suffix = type.includes("mp4") ? "m4a" : type.includes("ogg") ? "ogg" : "webm"; // Safari, Firefox, Chromium
  add([new File(chunks, `Recording ${time}.${suffix}`, {type})]);
}
