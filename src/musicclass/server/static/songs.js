// The page of songs: files in, cards out.
import {classifyOnServer, explainOnServer, loadCard} from "./api.js";
import {classifyInBrowser, explainInBrowser, loadModel} from "./browser.js";
import {showComparison} from "./compare.js";
import {$, clock, count, createElement, percent, saveFile} from "./dom.js";
import {showExplanation} from "./explanation.js";
import {onFiles} from "./files.js";
import {Player} from "./player.js";
import {confidenceText, genreLabel, probabilityBars} from "./prediction.js";
import {renderImage} from "./share-image.js";
import {deleteSong, loadSongs, saveSong} from "./song-store.js";

const UPLOADS = 3; // at once
const ON_SERVER = $("in-browser-status").textContent;
const songs = [];
let running = 0, added = 0, skipped = 0, duplicates = 0, scheduled = null;

loadCard().then(async ({genres, name}) => {
  for (const genre of genres) {
    ORDERS[genre] = predictedFirst((a, b) => b.prediction.probabilities[genre] - a.prediction.probabilities[genre]);
    $("by-probability").append(createElement("option", {value: genre}, genre));
  }
  for (const saved of await loadSongs().catch(() => [])) { // without storage, the page asks before it is left
    const {prediction} = saved, song = addSong(saved.file, saved);
    if (prediction?.model === name && genres.every(genre => genre in prediction.probabilities)) showPrediction(song);
    else showError(song, prediction ? "classified by another model; try again" : song.error);
  }
  update();
}).catch(error => { $("status").textContent = error.message; });
onFiles(addFiles);

// ---- classification

function addFiles(files, n_skipped = 0) {
  for (const file of files) {
    const isSame = song => ["name", "size", "lastModified"].every(key => song.file[key] === file[key]);
    if (songs.some(isSame)) duplicates += 1;
    else addSong(file);
  }
  skipped += n_skipped;
  classifyNext();
  update();
}

function addSong(file, saved = {}) {
  const song = {...saved, file, name: file.name, number: added++, state: "queued", abort: new AbortController()};
  songs.push(song);
  addCard(song);
  return song;
}

function classifyNext() {
  const song = songs.find(({state}) => state === "queued"), {checked: inBrowser, disabled: loading} = $("in-browser");
  if (!song || loading || running >= (inBrowser ? 1 : UPLOADS)) return;
  running += 1;
  classifyFile(song, inBrowser).finally(() => { running -= 1; classifyNext(); });
  classifyNext();
}

async function classifyFile(song, inBrowser) {
  const {signal} = song.abort = new AbortController(), classify = inBrowser ? classifyInBrowser : classifyOnServer;
  song.state = "running";
  try {
    const prediction = await classify(song.file, (text, share) => showProgress(song, text, share), signal);
    signal.throwIfAborted();
    Object.assign(song, {prediction, inBrowser, error: undefined});
    showPrediction(song);
  } catch ({message}) {
    if (signal.aborted) { // removed, or to be classified in the browser instead
      song.state = "queued";
      showProgress(song, "Queued", 0);
      return;
    }
    showError(song, message);
  }
  update();
  saveSong({file: song.file, inBrowser, prediction: song.prediction, error: song.error, ...song.key && {key: song.key}})
    .then(key => songs.includes(song) ? song.key = key : deleteSong(key))
    .catch(() => {}); // storage is full or forbidden
}

function retry(failed) {
  for (const song of failed) {
    Object.assign(song, {state: "queued", error: undefined, prediction: undefined});
    song.card.querySelector(".failure").hidden = true;
    song.card.querySelector(".progress").hidden = false;
    showProgress(song, "Queued", 0);
  }
  classifyNext();
  update();
}
$("retry-all").addEventListener("click", () => retry(songs.filter(({state}) => state === "failed")));
addEventListener("beforeunload", event => { if (songs.some(({key}) => key === undefined)) event.preventDefault(); });

$("in-browser").addEventListener("change", async ({target}) => {
  const status = $("in-browser-status");
  status.textContent = ON_SERVER;
  if (target.checked) {
    songs.forEach(({abort}) => abort.abort()); // no further byte is sent
    target.disabled = true;
    status.textContent = "Loading the model into this browser …";
    try {
      await loadModel();
      status.textContent = "On: this browser classifies songs itself, even offline.";
    } catch (error) {
      target.checked = false;
      status.textContent = error.message;
    }
    target.disabled = false;
    target.focus();
  }
  classifyNext();
});

// ---- cards

function addCard(song) {
  song.card = $("card").content.cloneNode(true).firstElementChild;
  const title = song.card.querySelector("h2"), remove = song.card.querySelector(".remove");
  Object.assign(title, {textContent: song.name, id: `song-${song.number}`});
  song.card.setAttribute("aria-labelledby", title.id);
  song.card.querySelector("progress").ariaLabel = `Progress of ${song.name}`;
  showProgress(song, "Queued", 0);
  remove.ariaLabel = `Remove ${song.name}`;
  song.card.querySelector(".retry").onclick = () => {
    retry([song]);
    remove.focus();
  };
  song.card.querySelector(".retry").ariaLabel = `Try ${song.name} again`;
  remove.onclick = () => {
    const neighbor = song.card.nextElementSibling ?? song.card.previousElementSibling;
    removeSong(song);
    (neighbor?.querySelector(".remove") ?? $("choose")).focus();
  };
  $("cards").append(song.card);
}

/** Show how far a song is; without a share, an indeterminate bar. */
function showProgress({card}, text, share) {
  if (share === undefined) card.querySelector("progress").removeAttribute("value");
  else card.querySelector("progress").value = share;
  card.querySelector(".progress span").textContent = text;
}

function showError(song, message) {
  const error = message.startsWith(song.name) ? message : `${song.name}: ${message}`;
  Object.assign(song, {state: "failed", error, prediction: undefined});
  song.card.querySelector(".progress").hidden = true;
  song.card.querySelector(".failure").hidden = false;
  song.card.querySelector(".problem").textContent = error;
}

function showPrediction(song) {
  song.state = "done";
  const {card, prediction, name} = song, find = selector => card.querySelector(selector);
  find(".progress").hidden = true;
  find(".result").hidden = false;
  find(".headline").replaceChildren(genreLabel(prediction.genre));
  find(".confidence").textContent = confidenceText(prediction);
  find(".tags").hidden = !Object.keys(prediction.tags).length;
  find(".tags").classList.toggle("prominent", prediction.genre === "unknown");
  find(".tags").replaceChildren(...Object.keys(prediction.tags).map(tag => createElement("li", {}, tag)));
  find(".limited").hidden = prediction.duration < prediction.limit;
  find(".limited").textContent = `Only the first ${clock(prediction.limit)} were analysed.`;
  find(".bars").replaceChildren(...probabilityBars(prediction.probabilities));
  const genres = [...new Set(prediction.segments.map(({genre}) => genre))];
  find(".legend").replaceChildren(...genres.map(genre => genreLabel(genre, undefined, "li")));
  song.url = URL.createObjectURL(song.file);
  song.player = new Player(find(".player"), song.url, prediction);
  find(".explain").onclick = () => toggleExplanation(song);
  find(".save-image").onclick = async () => saveFile(await renderImage(name, prediction), `${name}.png`);
}

async function toggleExplanation({card, file, prediction, inBrowser, player}) {
  const button = card.querySelector(".explain"), section = card.querySelector(".explanation");
  section.hidden = !section.hidden;
  button.ariaExpanded = String(!section.hidden);
  if (section.hidden || section.querySelector("canvas, [role=status]")) return;
  const status = createElement("p", {className: "muted", role: "status"}, "Occluding one part after the other …");
  const onProgress = share => { status.textContent = `Occluding one part after the other: ${percent(share)}`; };
  section.replaceChildren(status);
  try {
    const explain = inBrowser || $("in-browser").checked ? explainInBrowser : explainOnServer;
    const explanation = await explain(file, prediction.top_genre, onProgress);
    showExplanation(section, prediction, explanation, spans => player.playSpans(spans));
  } catch (error) {
    section.replaceChildren(createElement("p", {className: "problem"}, error.message));
  }
}

function removeSong(song) {
  songs.splice(songs.indexOf(song), 1);
  song.abort.abort();
  song.player?.remove();
  URL.revokeObjectURL(song.url);
  song.card.remove();
  if (song.key !== undefined) deleteSong(song.key).catch(() => {});
  update();
}

$("remove-all").addEventListener("click", () => {
  [...songs].forEach(removeSong);
  skipped = duplicates = 0;
  $("choose").focus();
});

// ---- order, filter, views

/** Below that of all others for "unknown", whose confidence is that of the closest genre. */
const confidence = ({prediction: {genre, confidence}}) => confidence - (genre === "unknown");
const byConfidence = (a, b) => confidence(b) - confidence(a);
const predictedFirst = order => (a, b) =>
  !a.prediction - !b.prediction || (a.prediction ? order(a, b) : a.number - b.number);
const ORDERS = {
  added: (a, b) => a.number - b.number,
  name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  genre: predictedFirst((a, b) => a.prediction.genre.localeCompare(b.prediction.genre) || byConfidence(a, b)),
  most_confident: predictedFirst(byConfidence),
  least_confident: predictedFirst((a, b) => byConfidence(b, a)),
};

function matches({name, prediction, state}) {
  const words = prediction ? [prediction.genre, prediction.top_genre, ...Object.keys(prediction.tags)] : [state];
  const text = [name, ...words].join(" ").toLowerCase();
  return $("filter").value.toLowerCase().split(/\s+/).every(word => text.includes(word));
}

/** Bring the page up to date, once for all songs that are done by the next frame. */
function update() {
  scheduled ??= requestAnimationFrame(updateNow);
}

function updateNow() {
  scheduled = null;
  $("tools").hidden = !songs.length;
  $("drop").classList.toggle("small", songs.length > 0);
  const sorted = songs.toSorted(ORDERS[$("order").value]), shown = sorted.filter(matches);
  sorted.forEach((song, i) => {
    song.card.hidden = !shown.includes(song);
    if ($("cards").children[i] !== song.card) $("cards").insertBefore(song.card, $("cards").children[i] ?? null);
  });
  const number = state => songs.filter(song => song.state === state).length;
  const counts = [`${number("done")} of ${count(songs.length, "song")} classified`];
  if (number("failed")) counts.push(`${number("failed")} failed`);
  if (shown.length < songs.length) counts.push(`${shown.length} shown`);
  if (skipped) counts.push(`${count(skipped, "file")} skipped (not audio)`);
  if (duplicates) counts.push(`${count(duplicates, "file")} skipped (in the list already)`);
  $("retry-all").hidden = !number("failed");
  $("status").textContent = songs.length || skipped ? `${counts.join(", ")}.` : "";
  const table = $("as-table").ariaPressed === "true";
  $("cards").hidden = table;
  $("compare").hidden = !table;
  if (table) showComparison($("compare"), shown.filter(({prediction}) => prediction));
}

for (const id of ["as-cards", "as-table"]) {
  $(id).addEventListener("click", () => {
    $("as-cards").ariaPressed = String(id === "as-cards");
    $("as-table").ariaPressed = String(id === "as-table");
    update();
  });
}
for (const id of ["filter", "order"]) $(id).addEventListener("input", update);

// ---- export

$("json").addEventListener("click", () => {
  const results = songs.map(({name, prediction, error, state}) => {
    if (!prediction) return {file: name, error: error ?? state};
    const {waveform_peaks, limit, ...result} = prediction;
    return result;
  });
  saveFile(new Blob([JSON.stringify(results, null, 1)], {type: "application/json"}), "genres.json");
});

$("csv").addEventListener("click", async () => {
  const {genres} = await loadCard();
  const columns = ["file", "genre", "top_genre", "confidence", "familiarity", "duration", "tags"];
  const rows = songs.map(({name, prediction: p, error, state}) => p
    ? [name, p.genre, p.top_genre, p.confidence.toFixed(6), p.familiarity.toFixed(6), p.duration.toFixed(3),
       Object.keys(p.tags).join(", "), ...genres.map(genre => p.probabilities[genre].toFixed(6)), ""]
    : [name, ...Array(columns.length - 1 + genres.length).fill(""), error ?? state]);
  const header = [...columns, ...genres.map(genre => `prob_${genre}`), "error"];
  const lines = [header, ...rows].map(row => `${row.map(csvField).join(",")}\r\n`);
  saveFile(new Blob(lines, {type: "text/csv"}), "genres.csv");
});

/** A field of a CSV, quoted where needed; an apostrophe disarms what a spreadsheet would run as a formula. */
function csvField(text) {
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
