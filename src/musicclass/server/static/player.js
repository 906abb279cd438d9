// The player: one song at a time; its waveform, timeline and spectrogram along a time axis that zooms.
import {$, clock, count, drawOn, keepDrawn, percent, themeColors} from "./dom.js";
import {drawWeights, spectrogram} from "./explanation.js";
import {drawTimeline, drawWaveform, genreColor, segmentAt, summary} from "./prediction.js";

const AXIS = 18, TIMELINE = 26, GAP = 4, LABEL = 60; // pixels; LABEL: the least distance of ticks
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800]; // seconds
const audio = new Audio();
let song = null, spans = [], frame = 0, problem = "", callbacks;

/** Call `onChange()` when play begins or ends, `neighbor(song, step)` for the songs beside one, `explain(song)`. */
export function setUpPlayer(given) {
  callbacks = given;
  $("player-play").onclick = () => togglePlay(song);
  const leave = () => {
    const {card} = song, next = [card.querySelector(".play"), $("as-table")].find(node => node.checkVisibility());
    close();
    next.focus();
  };
  $("player-close").onclick = leave;
  $("player").onkeydown = ({key}) => { if (key === "Escape") leave(); };
  $("spectrogram").onclick = ({target}) => {
    target.ariaPressed = String(target.ariaPressed === "false");
    showSpectrogram();
  };
  $("zoom").oninput = zoom;
  $("volume").oninput = ({target}) => {
    audio.volume = Number(target.value);
    target.ariaValueText = percent(audio.volume);
  };
  const slider = $("position"), pointed = ({offsetX}) => {
    const [start, end] = view();
    return start + Math.min(1, Math.max(0, offsetX / slider.clientWidth)) * (end - start);
  };
  Object.assign(slider, { // its own steps are for keys; a pointer seeks to where it points
    oninput: () => seek(Number(slider.value)),
    onpointerdown: event => { event.preventDefault(); slider.focus(); seek(pointed(event)); play(); },
    onpointermove: event => { describe(pointed(event)); },
    onpointerleave: () => describe(),
    onkeydown: () => { slider.value = audio.currentTime; }, // from which its step starts
  });
  Object.assign(audio, {
    onplay: changed, onpause: changed, ontimeupdate: followSpans,
    onended: () => step(1),
    onplaying: () => { problem = ""; },
    onerror: () => {
      if (!song) return;
      audio.pause(); // it counts as playing otherwise
      announce(problem = "This browser can't play it; is there a sound device?");
    },
  });
  keepDrawn($("scope"), draw);
  addEventListener("keydown", event => {
    const {key, target} = event;
    if (!song || key !== " " || target.closest("button, input:not([type=range]), select, summary, a")) return;
    event.preventDefault();
    togglePlay(song);
  });
  const actions = {play, pause: () => audio.pause(), previoustrack: () => step(-1), nexttrack: () => step(1)};
  for (const [name, action] of Object.entries(actions)) navigator.mediaSession?.setActionHandler(name, action);
  for (const [id, by] of [["player-previous", -1], ["player-next", 1]]) $(id).onclick = () => step(by);
}

export const isPlaying = each => each === song && !audio.paused;
export const togglePlay = each => isPlaying(each) ? audio.pause() : playFrom(each);

/** Play a song from a time in seconds, or from where it was. */
export function playFrom(each, seconds) {
  if (each !== song) load(each);
  else if (audio.error) { // perhaps there is a sound device now
    seconds ??= audio.currentTime;
    audio.load();
  }
  if (seconds !== undefined) seek(seconds);
  play();
}

/** Play spans [start, end] in seconds of a song, one after the other. */
export function playSpans(each, [...list]) {
  playFrom(each, list[0][0]);
  spans = list;
}

/** Forget a song that is removed. */
export function unload(each) {
  if (each === song) close();
}

function load(each) {
  close();
  song = each;
  problem = "";
  audio.src = URL.createObjectURL(song.file);
  $("player").hidden = false;
  $("player-name").textContent = song.title;
  $("zoom").value = 0;
  Object.assign($("position"), {max: song.prediction.duration, ariaLabel: `Position in ${song.name}`});
  $("player").ariaLabel = `Player of ${song.name}`;
  if (navigator.mediaSession) {
    const artwork = song.cover ? [{src: song.cover}] : [];
    navigator.mediaSession.metadata = new MediaMetadata({title: song.title, artist: song.artist, artwork});
  }
  showSpectrogram();
  update();
}

function close() {
  if (!song) return;
  audio.pause();
  URL.revokeObjectURL(audio.src);
  audio.removeAttribute("src");
  [song, spans] = [null, []];
  $("player").hidden = true;
  callbacks.onChange();
}

function zoom() {
  $("zoom").ariaValueText = count(2 ** $("zoom").value, "time");
  draw();
}

function step(by) {
  const next = callbacks.neighbor(song, by);
  if (next) playFrom(next, 0);
}

/** Reports of a sound that can't be played come from the error event, or from here where there is no device. */
const play = () => audio.play().catch(({name}) => { if (name !== "AbortError") audio.onerror(); });

function seek(seconds) {
  spans = [];
  audio.currentTime = seconds;
  update();
}

function changed() {
  const playing = !audio.paused, textContent = playing ? "Pause" : "Play";
  Object.assign($("player-play"), {textContent, ariaLabel: `${textContent} ${song?.name}`});
  callbacks.onChange();
  if (playing && !frame) follow();
}

function follow() {
  if (song) update();
  frame = audio.paused ? 0 : requestAnimationFrame(follow);
}

/** Unlike frames, timeupdate comes in hidden tabs too. */
function followSpans() {
  if (!spans.length || audio.currentTime < spans[0][1]) return;
  spans.shift();
  if (spans.length) audio.currentTime = spans[0][0];
  else audio.pause();
}

async function showSpectrogram() {
  const current = song;
  if (current && $("spectrogram").ariaPressed === "true") {
    const status = text => { if (current === song) announce(text); };
    status("Computing the spectrogram …");
    try {
      current.image ??= spectrogram((await callbacks.explain(current)).log_mel);
      if (current === song) describe();
    } catch ({message}) {
      status(message);
    }
  }
  $("scope").parentElement.classList.toggle("tall", $("spectrogram").ariaPressed === "true");
  draw();
}

const announce = textContent => Object.assign($("player-now"), {ariaLive: "polite", textContent});

function update() {
  const slider = $("position"), quiet = slider === document.activeElement && !audio.paused && !audio.seeking;
  if (!quiet) slider.value = audio.currentTime; // screen readers say each change of what has the focus
  if (!slider.matches(":hover")) describe(undefined, quiet);
  draw();
}

/** Show a time and its segment in words. */
function describe(seconds = audio.currentTime, quiet = false) {
  const text = summary(segmentAt(song.prediction, seconds));
  $("player-time").textContent = `${clock(seconds)} / ${clock(song.prediction.duration)}`;
  if (!problem) Object.assign($("player-now"), {ariaLive: "off", textContent: text});
  if (!quiet) $("position").ariaValueText = `${clock(seconds)}, ${text}`;
}

/** The seconds [start, end] that are drawn: all, or a part around the playhead. */
function view() {
  const {duration} = song.prediction, length = duration / 2 ** $("zoom").value;
  const start = Math.min(duration - length, Math.max(0, audio.currentTime - length / 2));
  return [start, start + length];
}

function draw() {
  if (!song) return;
  const {prediction, image, explanation} = song, [start, end] = view(), colors = themeColors();
  drawOn($("scope"), (context, width, height) => {
    const perSecond = width / (end - start), left = -start * perSecond, whole = prediction.duration * perSecond;
    const tall = height - AXIS - TIMELINE - GAP, shown = image && $("spectrogram").ariaPressed === "true";
    const waveform = shown ? tall / 3 : tall;
    drawWaveform(context, prediction, left, 0, whole, waveform, colors, audio.currentTime);
    if (shown) {
      context.save();
      context.translate(left, waveform + GAP);
      context.drawImage(image, 0, 0, whole, tall - waveform - GAP);
      if (explanation) drawWeights(context, explanation, perSecond, tall - waveform - GAP);
      context.restore();
    }
    drawTimeline(context, prediction, left, tall + GAP, whole, TIMELINE, colors);
    nameParts(context, start, end, perSecond, tall + GAP + TIMELINE / 2);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = colors.ink;
    const tick = TICKS.find(seconds => seconds * perSecond >= LABEL) ?? TICKS.at(-1);
    for (let at = Math.ceil(start / tick) * tick; at <= end; at += tick) {
      context.fillText(clock(at), Math.min((at - start) * perSecond, width - 28), height - 5);
    }
    context.fillRect(Math.round((audio.currentTime - start) * perSecond) - 1, 0, 2, height - AXIS);
  });
}

/** Write the genre of runs of segments into the timeline, where it fits. */
function nameParts(context, start, end, perSecond, middle) {
  Object.assign(context, {font: "600 12px system-ui, sans-serif", textBaseline: "middle"});
  for (const {genre, from, to} of runs(song.prediction.segments)) {
    const left = Math.max(from, start), right = Math.min(to, end);
    const x = (left - start) * perSecond + 6, wide = context.measureText(genre ?? "").width;
    if (genre === null || (right - left) * perSecond < wide + 24) continue;
    context.fillStyle = themeColors().paper;
    context.beginPath();
    context.roundRect(x - 3, middle - 9, wide + 18, 18, 4);
    context.fill();
    context.fillStyle = genreColor(genre);
    context.fillRect(x + 1, middle - 4, 8, 8);
    context.fillStyle = themeColors().ink;
    context.fillText(genre, x + 12, middle + 1);
  }
  context.textBaseline = "alphabetic";
}

/** Runs of segments of one genre: {genre, from, to}. */
function runs(segments) {
  const found = [];
  for (const {genre, start, end} of segments) {
    if (found.at(-1)?.genre === genre) found.at(-1).to = end;
    else found.push({genre, from: start, to: end});
  }
  return found;
}
