// The page of songs: files in, cards out.
import {classifyOnServer, loadCard} from "./api.js";
import {classifyInBrowser, loadModel} from "./browser.js";
import {explainSong, fillResult, showExample, showOpen, toggleExplanation, toggleSimilar} from "./card.js";
import {showComparison} from "./compare.js";
import {$, count, createElement, saveFile} from "./dom.js";
import {onFiles} from "./files.js";
import {onRecording} from "./live.js";
import {isPlaying, playFrom, setUpPlayer, togglePlay, unload} from "./player.js";
import {genreLabel, stackedBar} from "./prediction.js";
import {renderImage} from "./share-image.js";
import {deleteSong, loadSongs, saveSong} from "./song-store.js";
import {readTags} from "./song-tags.js";

const UPLOADS = 3, LIST_FROM = 5; // uploads at once; songs from which they are a list
const ON_SERVER = $("in-browser-status").textContent;
const songs = [];
let running = 0, added = 0, announced = 0, skipped = 0, duplicates = 0, scheduled = null, view = null;

loadCard().then(async ({genres, name}) => {
  for (const genre of genres) {
    ORDERS[genre] = predictedFirst((a, b) => b.prediction.probabilities[genre] - a.prediction.probabilities[genre]);
    $("by-probability").append(createElement("option", {value: genre}, genre));
    $("genres").append(createElement("option", {value: genre}));
    $("genre-chips").append(genreLabel(genre, genre, "li"));
  }
  showExample(name);
  $("first").hidden = false;
  for (const saved of await loadSongs().catch(() => [])) { // without storage, the page asks before it is left
    const {prediction} = saved, song = addSong(saved.file, saved);
    if (prediction?.model === name && genres.every(genre => genre in prediction.probabilities)) showPrediction(song);
    else showError(song, prediction ? "classified by another model; try again" : song.error);
  }
  update();
}).catch(error => { $("status").textContent = error.message; });
onFiles(addFiles);
onRecording(addFiles);
setUpPlayer({neighbor: playable, onChange: showPlaying, explain: explainSong});

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
  const {name} = file, abort = new AbortController();
  const song = {...saved, file, name, title: name, number: added++, state: "queued", abort};
  songs.push(song);
  addCard(song);
  readTags(file).then(tags => showTags(song, tags));
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
  Object.assign(song, {state: "running", inBrowser});
  try {
    const prediction = await classify(song.file, (text, share) => showProgress(song, text, share), signal);
    signal.throwIfAborted();
    Object.assign(song, {prediction, error: undefined});
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
  store(song);
}

function store(song) {
  const {file, inBrowser, prediction, error, label, key} = song;
  return saveSong({file, inBrowser, prediction, error, label, ...key && {key}})
    .then(saved => songs.includes(song) ? song.key = saved : deleteSong(saved))
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
$("retry-all").addEventListener("click", () => {
  retry(songs.filter(({state}) => state === "failed"));
  $("remove-all").focus();
});
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
    if (document.activeElement === document.body) target.focus(); // which it lost while it was disabled
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
  song.card.querySelector(".retry").ariaLabel = `Try again: ${song.name}`;
  remove.onclick = () => {
    const shown = [...$("cards").children].filter(card => !card.hidden), at = shown.indexOf(song.card);
    removeSong(song);
    ((shown[at + 1] ?? shown[at - 1])?.querySelector(".remove") ?? $("choose")).focus();
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

function showTags(song, {title, artist, cover}) {
  Object.assign(song, {title: title ?? song.name, artist, cover});
  const find = selector => song.card.querySelector(selector);
  find("h2").textContent = song.title;
  if (title) find("h2").title = song.name;
  Object.assign(find(".artist"), {textContent: artist ?? "", hidden: !artist});
  if (cover) Object.assign(find(".cover"), {src: cover, hidden: false});
  update();
}

function showPrediction(song) {
  song.state = "done";
  const {card, prediction, name} = song, find = selector => card.querySelector(selector);
  fillResult(card, prediction);
  find(".progress").hidden = true;
  for (const selector of [".play", ".open"]) find(selector).hidden = false;
  find(".play").onclick = () => togglePlay(song);
  find(".open").onclick = () => { song.open = find(".result").hidden; updateNow(); };
  find(".timeline-of-card").onclick = ({offsetX, currentTarget}) =>
    playFrom(song, offsetX / currentTarget.clientWidth * prediction.duration);
  Object.assign(find(".explain"), {onclick: () => toggleExplanation(song), ariaLabel: `Why? ${name}`});
  find(".similar").hidden = !document.querySelector("nav a[href='./library']") || song.inBrowser;
  Object.assign(find(".similar"), {onclick: () => toggleSimilar(song), ariaLabel: `Similar songs to ${name}`});
  for (const [button, section] of [[".explain", ".explanation"], [".similar", ".similar-songs"]]) {
    find(section).onkeydown = ({key}) => {
      if (key !== "Escape") return;
      find(button).click();
      find(button).focus();
    };
  }
  Object.assign(find(".save-image"), {ariaLabel: `Save image of ${name}`,
    onclick: async () => saveFile(await renderImage(song.title, prediction), `${name}.png`)});
  Object.assign(find(".label"), {value: song.label ?? "", ariaLabel: `Right genre of ${name}`});
  find(".label").onchange = ({target}) => {
    song.label = target.value.trim();
    store(song);
    update();
  };
  showPlaying();
}

/** Which song plays, on all buttons. */
function showPlaying() {
  for (const song of songs.filter(({prediction}) => prediction)) {
    const playing = isPlaying(song), [textContent, verb] = playing ? ["❚❚", "Pause"] : ["▶", "Play"];
    Object.assign(song.card.querySelector(".play"), {textContent, ariaLabel: `${verb} ${song.name}`});
    song.card.classList.toggle("current", playing);
  }
}

/** The song that is shown before (step -1) or after (1) another one, and that can be played. */
function playable(song, step) {
  const cards = [...$("cards").children], shown = cards.filter(card => !card.hidden || card === song.card);
  const list = shown.map(card => songs.find(each => each.card === card)).filter(({prediction}) => prediction);
  return list[list.indexOf(song) + step];
}

function removeSong(song) {
  songs.splice(songs.indexOf(song), 1);
  song.abort.abort();
  unload(song);
  if (song.cover) URL.revokeObjectURL(song.cover);
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

function matches({name, title, artist = "", label = "", prediction, state}) {
  const words = prediction ? [prediction.genre, prediction.top_genre, ...Object.keys(prediction.tags)] : [state];
  const text = [name, title, artist, label, ...words].join(" ").toLowerCase();
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
  const focused = document.activeElement, visible = new Set(shown);
  sorted.forEach((song, i) => {
    song.card.hidden = !visible.has(song);
    if ($("cards").children[i] !== song.card) $("cards").insertBefore(song.card, $("cards").children[i] ?? null);
  });
  const number = state => songs.filter(song => song.state === state).length;
  const counts = [`${number("done")} of ${count(songs.length, "song")} classified`];
  if (number("failed")) counts.push(`${number("failed")} failed`);
  if (shown.length < songs.length) counts.push(`${shown.length} shown`);
  if (skipped) counts.push(`${count(skipped, "file")} skipped (not audio)`);
  if (duplicates) counts.push(`${count(duplicates, "file")} skipped (in the list already)`);
  const pending = number("queued") + number("running");
  $("status").ariaLive = pending && announced === songs.length ? "off" : "polite"; // not each song by itself
  announced = songs.length;
  $("retry-all").hidden = !number("failed");
  $("status").textContent = songs.length || skipped ? `${counts.join(", ")}.` : "";
  $("tools").classList.toggle("few", songs.length < 2);
  $("first").hidden = songs.length > 0;
  const current = view ?? (songs.length < LIST_FROM ? "cards" : "list"), table = current === "table";
  for (const name of VIEWS) $(`as-${name}`).ariaPressed = String(name === current);
  for (const song of songs) showOpen(song, current === "cards");
  $("cards").hidden = table;
  $("compare").hidden = !table;
  const classified = shown.filter(({prediction}) => prediction);
  if (table) showComparison($("compare"), classified);
  showShares();
  if (focused !== document.activeElement) focused.focus(); // a card that was moved has lost it
}

/** How many songs each genre has; a click shows one genre alone. */
function showShares() {
  const done = songs.filter(({prediction}) => prediction);
  const counts = Map.groupBy(done, ({prediction}) => prediction.genre);
  const sorted = [...counts].map(([genre, list]) => [genre, list.length]).sort(([, a], [, b]) => b - a);
  const focused = $("shares").contains(document.activeElement) && document.activeElement.value;
  $("shares").hidden = done.length < LIST_FROM;
  $("shares").replaceChildren(stackedBar(sorted.map(([genre, n]) => [genre, n / done.length])),
    createElement("div", {className: "legend"}, ...sorted.map(([genre, n]) => createElement("button", {
      type: "button", value: genre, ariaPressed: String($("filter").value === genre),
      onclick: () => { $("filter").value = $("filter").value === genre ? "" : genre; update(); },
    }, genreLabel(genre, `${genre} ${n}`)))));
  $("shares").querySelector(`[value="${CSS.escape(focused)}"]`)?.focus();
}

const VIEWS = ["cards", "list", "table"];
for (const name of VIEWS) {
  $(`as-${name}`).addEventListener("click", () => {
    view = name;
    for (const song of songs) delete song.open;
    update();
  });
}
for (const id of ["filter", "order"]) $(id).addEventListener("input", update);

// ---- export

$("json").addEventListener("click", () => {
  const results = songs.map(({name, prediction, error, state, label}) => {
    if (!prediction) return {file: name, error: error ?? state};
    const {waveform_peaks, limit, ...result} = prediction;
    return label ? {...result, label} : result;
  });
  saveFile(new Blob([JSON.stringify(results, null, 1)], {type: "application/json"}), "genres.json");
});

$("csv").addEventListener("click", async () => {
  const {genres} = await loadCard();
  const columns = ["file", "genre", "top_genre", "confidence", "familiarity", "duration", "tags", "label"];
  const rows = songs.map(({name, prediction: p, error, state, label = ""}) => p
    ? [name, p.genre, p.top_genre, p.confidence.toFixed(6), p.familiarity.toFixed(6), p.duration.toFixed(3),
       Object.keys(p.tags).join(", "), label, ...genres.map(genre => p.probabilities[genre].toFixed(6)), ""]
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
