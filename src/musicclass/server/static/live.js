// Live classification: the microphone or the sound of a tab, second by second, in this browser alone.
import {address} from "./api.js";
import {classifySamples, loadModel} from "./browser.js";
import {$, clock, createElement, drawOn, keepDrawn, withAlpha} from "./dom.js";
import {confidenceText, genreColor, headline} from "./prediction.js";

const SECONDS = 10, MIN_SECONDS = 3, SILENCE_DB = -60; // what is classified, and the level (RMS) below which nothing is
const RIBBON_SECONDS = 60, SPOKEN_SECONDS = 5; // the least time between announcements
const RAW = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
let session = null, spoken = 0; // when something was announced, in ms

/** Call `add(files)` with recordings that are kept, and with none where the page changes. */
export function onRecording(add) {
  const {mediaDevices} = navigator;
  $("listen-tab").hidden = !mediaDevices?.getSupportedConstraints().suppressLocalAudioPlayback; // Firefox: no sound
  $("listen").onclick = () => listen(add, () => mediaDevices.getUserMedia({audio: RAW}));
  $("listen-tab").onclick = () => listen(add, () => mediaDevices.getDisplayMedia({video: true, audio: RAW}));
  $("keep").onclick = () => stop(true);
  $("discard").onclick = () => stop(false);
  keepDrawn($("ribbon"), drawRibbon);
}

async function listen(add, open) {
  if (session) return;
  $("listen-problem").textContent = "";
  const current = session = {blocks: [], results: [], chunks: [], start: new Date(), add};
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it over https or on localhost only");
    current.stream = await open();
    if (!current.stream.getAudioTracks().length) throw new Error("it has no sound; share a tab with its sound");
    current.context = new AudioContext();
    await current.context.audioWorklet.addModule(address("static/capture.js"));
    connect(current);
  } catch (error) {
    $("listen-problem").textContent = `Can't listen (${error.message}); allow it for this page, or choose a file.`;
    stop(false);
    return;
  }
  $("live").hidden = false;
  $("drop").hidden = $("first").hidden = true;
  show(null, "Loading the model into this browser …");
  $("keep").focus();
  current.timer = setInterval(() => classifyLast(current), 1000);
  loadModel().then(() => { current.ready = true; }, ({message}) => show(null, `Recording, without genres: ${message}`));
}

function connect(current) {
  const {context, stream, blocks, chunks} = current;
  const audio = new MediaStream(stream.getAudioTracks()), source = context.createMediaStreamSource(audio);
  const capture = new AudioWorkletNode(context, "capture", {channelCount: 1, channelCountMode: "explicit"});
  capture.port.onmessage = ({data}) => {
    blocks.push(data);
    if (blocks.length * data.length > SECONDS * context.sampleRate) blocks.shift();
  };
  source.connect(capture);
  current.recorder = new MediaRecorder(audio);
  current.recorder.ondataavailable = ({data}) => chunks.push(data);
  current.recorder.start();
  stream.getAudioTracks()[0].onended = () => stop(true); // the tab was closed, or the device unplugged
}

async function classifyLast(current) {
  const {blocks, context, results, ready, busy, start} = current, rate = context.sampleRate;
  const samples = new Float32Array(blocks.reduce((total, {length}) => total + length, 0));
  blocks.reduce((at, block) => { samples.set(block, at); return at + block.length; }, 0);
  const level = decibels(samples.subarray(-rate)), seconds = Math.round((Date.now() - start) / 1000);
  $("level").value = level;
  $("live-time").textContent = clock(seconds);
  if (context.state !== "running") { // Firefox, without a sound device
    if (seconds > MIN_SECONDS) show(null, "Recording, without genres: is there a loudspeaker or headphones?");
    return;
  }
  if (!ready || busy) return;
  if (level < SILENCE_DB) {
    results.push({seconds, genre: null});
    show(null, "silence");
  } else if (samples.length < MIN_SECONDS * rate) {
    show(null, "Listening …");
  } else {
    current.busy = true;
    const prediction = await classifySamples(samples, rate).catch(({message}) => ({message}));
    current.busy = false;
    if (session !== current) return;
    if (prediction.message) show(null, prediction.message);
    else {
      results.push({seconds, ...prediction});
      show(prediction);
    }
  }
  drawRibbon();
}

/** Mean power in dB of full scale. */
const decibels = samples =>
  10 * Math.log10(samples.reduce((sum, x) => sum + x * x, 1e-12) / Math.max(1, samples.length));

function show(prediction, text = confidenceText(prediction)) {
  const parts = prediction ? headline(prediction) : [text];
  $("live-genre").replaceChildren(...parts);
  announce($("live-genre").textContent);
  $("live-text").textContent = prediction ? `the last ${SECONDS} seconds: ${text}` : "";
  $("live-tags").replaceChildren(...Object.keys(prediction?.tags ?? {}).map(tag => createElement("li", {}, tag)));
}

/** Let screen readers say what has changed, but not every second. */
function announce(text) {
  const now = Date.now();
  if (text === $("live-spoken").textContent || now - spoken < 1000 * SPOKEN_SECONDS) return;
  spoken = now;
  $("live-spoken").textContent = text;
}

/** The last minute; each answer as high as it is confident. */
function drawRibbon() {
  if (!session?.results) return;
  const {results} = session, last = results.at(-1)?.seconds ?? 0;
  drawOn($("ribbon"), (context, width, height) => {
    const wide = width / RIBBON_SECONDS;
    for (const {seconds, genre, confidence = 1} of results.slice(-RIBBON_SECONDS)) {
      const tall = genre === null ? 4 : Math.max(.1, confidence) * (height - 4);
      context.fillStyle = withAlpha(genreColor(genre), genre === "unknown" ? .5 : 1);
      context.fillRect(width - (last - seconds + 1) * wide, height - tall, wide - 1, tall);
    }
  });
}

function stop(keep) {
  const {recorder, stream, context, timer, chunks, start, add} = session;
  clearInterval(timer);
  session = null;
  $("live").hidden = true;
  $("drop").hidden = false;
  add([]);
  $("listen").focus();
  const end = () => {
    stream?.getTracks().forEach(track => track.stop());
    context?.close();
  };
  if (!recorder) return end();
  recorder.onstop = () => {
    end();
    const {type} = chunks[0], time = start.toTimeString().slice(0, 8).replaceAll(":", ".");
    const suffix = type.includes("mp4") ? "m4a" : type.includes("ogg") ? "ogg" : "webm"; // Safari, Firefox, Chromium
    if (keep) add([new File(chunks, `Recording ${time}.${suffix}`, {type})]);
  };
  recorder.stop();
}
