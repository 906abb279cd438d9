// The page of songs: files in, cards out. songs.html shows `page`.
import {classifyOnServer, fetchJson, loadCard} from "./api.js";
import {classifyInBrowser, loadModel} from "./browser.js";
import * as card from "./card.js";
import {$, count, percent, saveFile} from "./dom.js";
import {saveCsv, saveJson} from "./export.js";
import {paintSpectrogram} from "./explanation.js";
import {onFiles} from "./files.js";
import {onRecording} from "./live.js";
import {isPlaying, playFrom, playSpans, setUpPlayer, togglePlay, unload} from "./player.js";
import * as presentation from "./prediction.js";
import {renderCard} from "./share-image.js";
import {deleteSong, loadSongs, saveSong} from "./song-store.js";
import {readTags} from "./song-tags.js";
import Alpine, {restoreFocus} from "./ui.js";

const UPLOADS = 3, LIST_FROM = 5; // uploads at once; songs from which they are a list
const OFF = "Off: songs are uploaded to this musicclass server, which doesn't store them.";
const page = Alpine.reactive({
  songs: [], genres: [], example: null, problem: "", skipped: 0, duplicates: 0,
  filter: "", order: "added", view: null, inBrowser: false, loading: false, mode: OFF,
});
let added = Date.now(), announced = 0; // numbers of songs; they grow from visit to visit

async function start() {
  const songs = loadSongs().catch(() => []); // of earlier visits; without storage, the page asks before it is left
  const {genres, name} = await loadCard(), example = await fetchJson("static/example.json").catch(() => ({}));
  Object.assign(page, {genres, example: example.model === name ? Object.freeze(example) : null});
  for (const saved of (await songs).sort((a, b) => a.number - b.number)) {
    const {prediction} = saved, song = addSong(saved.file, saved);
    const isCurrent = prediction?.model === name && genres.every(genre => genre in prediction.probabilities);
    if (isCurrent) finish(song, prediction);
    else fail(song, prediction ? "classified by another model; try again" : saved.error);
  }
}

// ---- classification

function addFiles(files, skipped = 0) {
  for (const file of files) {
    const isSame = song => ["name", "size", "lastModified"].every(key => song.file[key] === file[key]);
    if (page.songs.some(isSame)) page.duplicates += 1;
    else addSong(file);
  }
  page.skipped += skipped;
  classifyNext();
}

function addSong(file, saved = {}) {
  const {name} = file, number = saved.number ?? added++;
  const song = Alpine.reactive({...saved, file, name, title: name, number, abort: new AbortController()});
  enqueue(song);
  page.songs.push(song);
  readTags(file).then(({title = name, artist, cover}) => Object.assign(song, {title, artist, cover}));
  return song;
}

/** Without a share, the progress is indeterminate. */
const enqueue = song => Object.assign(song, {state: "queued", error: undefined, progress: "Queued", share: 0});
const inState = (...states) => page.songs.filter(({state}) => states.includes(state));

function classifyNext() {
  const [song] = inState("queued"), running = inState("running").length;
  if (!song || page.loading || running >= (page.inBrowser ? 1 : UPLOADS)) return;
  classifyFile(song, page.inBrowser).finally(classifyNext);
  classifyNext();
}

async function classifyFile(song, inBrowser) {
  const {signal} = song.abort = new AbortController(), classify = inBrowser ? classifyInBrowser : classifyOnServer;
  Object.assign(song, {state: "running", inBrowser});
  try {
    const prediction = await classify(song.file, (progress, share) => Object.assign(song, {progress, share}), signal);
    signal.throwIfAborted();
    finish(song, prediction);
  } catch ({message}) {
    if (signal.aborted) return enqueue(song); // removed, or to be classified in the browser instead
    fail(song, message);
  }
  store(song);
}

const finish = (song, prediction) =>
  Object.assign(song, {state: "done", prediction: Object.freeze(prediction)});

function fail(song, message) {
  const error = message.startsWith(song.name) ? message : `${song.name}: ${message}`;
  Object.assign(song, {state: "failed", error, prediction: undefined});
}

function store(song) {
  const {number, file, inBrowser, prediction, error, label, key} = song;
  return saveSong({number, file, inBrowser, prediction, error, label, ...key && {key}})
    .then(saved => page.songs.includes(song) ? song.key = saved : deleteSong(saved))
    .catch(() => {}); // storage is full or forbidden
}

/** Classify songs again; the focus goes to what stays. */
function retry(songs, focused) {
  songs.forEach(enqueue);
  classifyNext();
  focused.focus();
}

async function switchMode(box) {
  page.mode = OFF;
  if (page.inBrowser) {
    page.songs.forEach(({abort}) => abort.abort()); // no further byte is sent
    Object.assign(page, {loading: true, mode: "Loading the model into this browser …"});
    try {
      await loadModel();
      page.mode = "On: this browser classifies songs itself, even offline.";
    } catch ({message}) {
      Object.assign(page, {inBrowser: false, mode: message});
    }
    page.loading = false;
    await Alpine.nextTick();
    if (document.activeElement === document.body) box.focus(); // which it lost while it was disabled
  }
  classifyNext();
}

function correct(song, label) {
  song.label = label.trim();
  store(song);
}

function removeSong(song) {
  page.songs.splice(page.songs.indexOf(song), 1);
  song.abort.abort();
  unload(song);
  if (song.cover) URL.revokeObjectURL(song.cover);
  if (song.key !== undefined) deleteSong(song.key).catch(() => {});
}

/** Remove a song by its button; the focus goes to that of the next one. */
function removeBy(button, song) {
  const buttons = [...document.querySelectorAll("#cards .remove")].filter(each => each.checkVisibility());
  const at = buttons.indexOf(button);
  removeSong(song);
  (buttons[at + 1] ?? buttons[at - 1] ?? $("choose")).focus();
}

function removeAll() {
  [...page.songs].forEach(removeSong);
  page.skipped = page.duplicates = 0;
  $("choose").focus();
}

// ---- order, filter, views

const VIEWS = [["cards", "Cards"], ["list", "List"], ["table", "Compare"]];
const view = () => page.view ?? (page.songs.length < LIST_FROM ? "cards" : "list");
const isOpen = ({prediction, open}) => Boolean(prediction) && (open ?? view() === "cards");

function showAs(name) {
  page.view = name;
  for (const song of page.songs) song.open = undefined;
}

/** Below that of all others for "unknown", whose confidence is that of the closest genre. */
const confidence = ({genre, confidence}) => confidence - (genre === "unknown");
const byConfidence = (a, b) => confidence(b) - confidence(a);
const ORDERS = { // of predictions
  genre: (a, b) => a.genre.localeCompare(b.genre) || byConfidence(a, b),
  most_confident: byConfidence,
  least_confident: (a, b) => byConfidence(b, a),
};

function sorted() {
  const {order, songs} = page;
  if (order === "added") return songs;
  if (order === "name") return songs.toSorted((a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}));
  const compare = ORDERS[order] ?? ((a, b) => b.probabilities[order] - a.probabilities[order]);
  return songs.toSorted((a, b) => !a.prediction - !b.prediction
    || (a.prediction ? compare(a.prediction, b.prediction) : a.number - b.number));
}

function matches({name, title, artist = "", label = "", prediction, state}) {
  const words = prediction ? [prediction.genre, prediction.top_genre, ...Object.keys(prediction.tags)] : [state];
  const text = [name, title, artist, label, ...words].join(" ").toLowerCase();
  return page.filter.toLowerCase().split(/\s+/).every(word => text.includes(word));
}

/** The song that is shown before (step -1) or after (1) another one, and that can be played. */
function neighbor(song, step) {
  const songs = sorted().filter(each => each.prediction && (each === song || matches(each)));
  return songs[songs.indexOf(song) + step];
}

function statusText() {
  const n_songs = page.songs.length, [done, failed] = ["done", "failed"].map(state => inState(state).length);
  const n_shown = page.songs.filter(matches).length;
  const counts = [`${done} of ${count(n_songs, "song")} classified`];
  if (failed) counts.push(`${failed} failed`);
  if (n_shown < n_songs) counts.push(`${n_shown} shown`);
  if (page.skipped) counts.push(`${count(page.skipped, "file")} skipped (not audio)`);
  if (page.duplicates) counts.push(`${count(page.duplicates, "file")} skipped (in the list already)`);
  return n_songs || page.skipped ? `${counts.join(", ")}.` : page.problem;
}

/** Announce the number of songs, and when all are done; not each song by itself. */
function statusLive() {
  const isSame = announced === page.songs.length;
  announced = page.songs.length;
  return isSame && inState("queued", "running").length ? "off" : "polite";
}

/** How many songs each genre has: [[genre, number]]. */
function genreCounts() {
  const counts = Map.groupBy(inState("done"), ({prediction}) => prediction.genre);
  return [...counts].map(([genre, songs]) => [genre, songs.length]).sort(([, a], [, b]) => b - a);
}

// ---- what the HTML calls

/** A list that the page shows: the focus stays where it is when the order changes. */
const keepFocus = list => {
  restoreFocus();
  return list;
};
/** The place of a time span in a box of a whole track. */
const extent = (start, end, {duration}) =>
  ({left: percent(start / duration, 3), width: percent((end - start) / duration, 3)});
const seek = (song, {offsetX, currentTarget}) =>
  playFrom(song, offsetX / currentTarget.clientWidth * song.prediction.duration);
const saveImage = async ({name}, article) => saveFile(await renderCard(article), `${name}.png`);
const playParts = song => playSpans(song, song.explanation.top_spans);
const probabilities = ({prediction}) => Object.entries(prediction.probabilities);
const examples = () => page.example && !page.songs.length ? [{prediction: page.example}] : [];
const showShare = genre => { page.filter = page.filter === genre ? "" : genre; };

/** Close a section of a card by its button. */
function fold(section, selector) {
  const button = section.closest(".result").querySelector(selector);
  button.click();
  button.focus();
}

Alpine.data("songs", () => ({
  ...onFiles(addFiles), ...onRecording(addFiles), ...card, ...presentation,
  page, VIEWS, view, showAs, keepFocus, sorted, matches, isOpen, inState, genreCounts, showShare, statusText,
  statusLive, retry, removeBy, removeAll, switchMode, correct, saveImage, fold, extent, probabilities, examples,
  isPlaying, togglePlay, seek, playParts, paintSpectrogram,
  comparable: () => sorted().filter(song => song.prediction && matches(song)),
  showsShares: () => inState("done").length >= LIST_FROM,
  hasLibrary: document.querySelector("nav a[href='./library']") !== null,
  saveCsv: () => saveCsv(page.songs, page.genres), saveJson: () => saveJson(page.songs),
}));
addEventListener("beforeunload", event => {
  if (page.songs.some(({key}) => key === undefined)) event.preventDefault();
});
setUpPlayer({neighbor, explain: card.explainSong});
Alpine.start();
start().catch(({message}) => { page.problem = message; });
