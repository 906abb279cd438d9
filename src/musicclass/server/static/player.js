// The player: one song at a time; its waveform, timeline and spectrogram along a time axis that zooms.
import {$} from "./dom.js";
import {segmentAt, summary} from "./prediction.js";
import Alpine from "./ui.js";

const MAX_TICKS = 8, TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800]; // at once; seconds
const audio = $("audio");
/** Times in seconds: `time` that is played, `pointed` under the pointer or null, `position` of the slider. */
export const player = Alpine.reactive({
  song: null, playing: false, time: 0, position: 0, pointed: null,
  zoom: 0, volume: 1, spectrogram: false, problem: "", status: "",
});
let spans = [], frame = 0, callbacks;

/** `neighbor(song, step)` gives the songs beside one; `explain(song)` sets its explanation, and waits for it. */
export function setUpPlayer(given) {
  callbacks = given;
  Alpine.data("player", () => ({
    player, failed, follow, followSpans, leave, magnification, parts, playFrom, scroll, seek, showSpectrogram, step,
    ticks, timeAt, togglePlay,
    get shown() { return player.pointed ?? player.time; },
    get explained() { return player.spectrogram && player.song.explanation ? [player.song] : []; },
    summaryAt: seconds => summary(segmentAt(player.song.prediction, seconds)),
    playBySpace: event => {
      if (event.target.closest("button, input:not([type=range]), select, summary, a")) return;
      event.preventDefault();
      togglePlay(player.song);
    },
  }));
  Alpine.effect(() => { audio.volume = player.volume; });
  const actions = {play, pause: () => audio.pause(), previoustrack: () => step(-1), nexttrack: () => step(1)};
  for (const [name, action] of Object.entries(actions)) navigator.mediaSession.setActionHandler(name, action);
}

const magnification = () => 2 ** player.zoom;
const isCurrent = song => song === player.song;
export const isPlaying = song => isCurrent(song) && player.playing;
export const togglePlay = song => isPlaying(song) ? audio.pause() : playFrom(song);

/** Play a song from a time in seconds, or from where it was. */
export function playFrom(song, seconds) {
  if (!isCurrent(song)) load(song);
  else if (audio.error) { // perhaps there is a sound device now
    seconds ??= audio.currentTime;
    audio.load();
  }
  if (seconds !== undefined) seek(seconds);
  play();
}

/** Play spans [start, end] in seconds of a song, one after the other. */
export function playSpans(song, [...list]) {
  playFrom(song, list[0][0]);
  spans = list;
}

/** Forget a song that is removed. */
export const unload = song => { if (isCurrent(song)) close(); };

function load(song) {
  close();
  audio.src = URL.createObjectURL(song.file);
  Object.assign(player, {song, pointed: null, zoom: 0, problem: ""});
  const {title, artist, cover} = song, artwork = cover ? [{src: cover}] : [];
  navigator.mediaSession.metadata = new MediaMetadata({title, artist, artwork});
  showSpectrogram(player.spectrogram);
  follow();
}

function close() {
  if (!player.song) return;
  audio.pause();
  URL.revokeObjectURL(audio.src);
  audio.removeAttribute("src");
  spans = [];
  player.song = null;
}

/** Close the player; the focus goes to the song's card. */
function leave() {
  const card = $(`song-${player.song.number}`).closest("article");
  const next = [card.querySelector(".play"), $("as-table")].find(node => node.checkVisibility());
  close();
  next.focus();
}

function step(by) {
  const next = player.song && callbacks.neighbor(player.song, by);
  if (next) playFrom(next, 0);
}

/** Reports of a sound that can't be played come from the error event, or from here where there is no device. */
const play = () => audio.play().catch(({name}) => { if (name !== "AbortError") failed(); });

function failed() {
  if (!player.song) return;
  audio.pause(); // it counts as playing otherwise
  player.problem = "This browser can't play it; is there a sound device?";
}

function seek(seconds) {
  spans = [];
  audio.currentTime = seconds;
  follow();
}

/** The time under the pointer. */
function timeAt({offsetX, target}) {
  const [start, end] = view();
  return start + Math.min(1, Math.max(0, offsetX / target.clientWidth)) * (end - start);
}

/** Show what the sound does: now, and in each frame while it plays. */
function follow() {
  Object.assign(player, {playing: !audio.paused, time: audio.currentTime});
  const quiet = document.activeElement?.id === "position" && player.playing && !audio.seeking;
  if (!quiet) player.position = player.time; // screen readers say each change of what has the focus
  cancelAnimationFrame(frame);
  if (player.playing) frame = requestAnimationFrame(follow);
}

/** Unlike frames, timeupdate comes in hidden tabs too. */
function followSpans() {
  if (!spans.length || audio.currentTime < spans[0][1]) return;
  spans.shift();
  if (spans.length) audio.currentTime = spans[0][0];
  else audio.pause();
}

async function showSpectrogram(isShown) {
  const {song} = player, missing = isShown && !song.explanation;
  Object.assign(player, {spectrogram: isShown, status: missing ? "Computing the spectrogram …" : ""});
  const problem = missing ? await callbacks.explain(song).then(() => "", ({message}) => message) : "";
  if (isCurrent(song)) player.status = problem;
}

/** The seconds [start, end] that are shown: all, or a part around the playhead. */
function view() {
  const {duration} = player.song.prediction, length = duration / magnification();
  const start = Math.min(duration - length, Math.max(0, player.time - length / 2));
  return [start, start + length];
}

const scroll = node => { node.parentNode.scrollLeft = view()[0] / player.song.prediction.duration * node.offsetWidth; };

/** The times that the axis names. */
function ticks() {
  const {duration} = player.song.prediction, shown = duration / magnification();
  const tick = TICKS.find(seconds => seconds * MAX_TICKS >= shown) ?? TICKS.at(-1);
  return Array.from({length: Math.ceil(duration / tick - 1 / 3)}, (_, i) => i * tick);
}

/** Runs of segments of one genre: [{genre, start, end}]. */
function parts() {
  const found = [];
  for (const {genre, start, end} of player.song.prediction.segments) {
    if (found.at(-1)?.genre === genre) found.at(-1).end = end;
    else found.push({genre, start, end});
  }
  return found;
}
