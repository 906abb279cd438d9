// A library's table: its map, its genres, its songs, and their corrections. library.html shows `state`.
import {address, fetchJson, loadCard, send} from "./api.js";
import {$, count, saveFile} from "./dom.js";
import {confidenceText} from "./prediction.js";
import Alpine, {restoreFocus} from "./ui.js";

const PAGE_SIZE = 50, POLL_SECONDS = 5; // songs
const OUTCOMES = ["changed", "failed", "skipped"]; // of files whose tags are written
const state = Alpine.reactive({
  overview: {songs: 0, corrected: 0}, rows: [], songs: [], status: "", // songs that match, and those that are listed
  filter: {text: "", order: "path", genre: "", disagreeing: false, corrected: false}, chosen: null, labelForAll: "",
  hasMap: true, mapData: null, color: "genre", legend: [], isLasso: false, outline: "", tips: [],
  playing: {row: null}, tags: {status: "", mode: "only missing", files: [], changes: 0, canUndo: false},
});
const tracks = new Map(); // songs by row
let map = null, revision = "", hovered = null, requests = 0, proposed = {}, waiting = Promise.resolve(); // for writing

const say = text => { state.status = text; };
const showError = error => say(error.message);
const json = (method, body) => ({method, headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
async function fetchBytes(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw new Error((await response.json()).detail);
  return response.arrayBuffer();
}

function cacheTrack(song) {
  if (!tracks.has(song.row)) tracks.set(song.row, Alpine.reactive({}));
  return Object.assign(tracks.get(song.row), song);
}
const fetchTrack = async row => tracks.get(row) ?? cacheTrack(await fetchJson(`v1/library/songs/${row}`));

/** What a song's genre rests on. */
const details = song => [
  song.correction ? `corrected; predicted: ${song.genre}, ${confidenceText(song)}` : confidenceText(song),
  song.tags, song.genre_tag && `tagged ${song.genre_tag}`, song.year,
].filter(Boolean).join(" · ");

// ---- map

async function startMap() {
  map = await import("./map.js");
  const select = rows => choose(rows, `${count(rows.length, "song")} selected on the map`);
  map.start(state, {hover, play: playRow, select});
  new ResizeObserver(drawMap).observe($("map"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
}

const loadMap = async () => { if (map) state.mapData = map.read(await fetchBytes("v1/library/map")); };
/** Draw the map anew, the songs that match lit up. */
function drawMap() {
  const {mapData, color, rows, playing} = state;
  if (mapData) state.legend = map.show(mapData, color, rows.length < mapData.songs ? rows : null, playing.row);
}

async function hover(row) {
  if (row === hovered) return;
  hovered = row;
  const song = row === null ? null : await fetchTrack(row).catch(() => null);
  if (row !== hovered) return;
  const [x, y] = song ? map.at(row) : []; // the farther on the right, the more of the tip is on its left
  const css = {left: `${x}px`, top: `${y + 14}px`, translate: `${-100 * x / $("map").clientWidth}%`};
  state.tips = song ? [{song, css}] : [];
}

// ---- table

async function showOverview(overview) {
  const {genre} = state.filter;
  if (genre) overview.genres[genre] ??= 0;
  state.overview = Object.freeze(overview);
  await restoreFocus(); // genres may have moved
}

/** Show the table, again whenever `musicclass library --watch` has changed it. */
async function follow() {
  const {songs} = state.overview, next = await fetchJson("v1/library");
  if (next.revision === revision) return;
  ({revision} = next);
  tracks.clear(); // by rows that are others' now
  Object.assign(state, {chosen: null, songs: [], playing: {...state.playing, row: null}});
  showOverview(next);
  await Promise.all([loadMap(), list()]);
  if (songs) say(`The table has changed: ${count(next.songs, "song")} instead of ${songs.toLocaleString("en")}.`);
}

/** List the songs that match the search and the filters, and light them up in the map. */
async function list(changes) {
  const filter = Object.entries(Object.assign(state.filter, changes)).filter(([, value]) => value);
  const {chosen} = state, request = ++requests;
  let found = [...new Uint32Array(await fetchBytes(`v1/library/rows?${new URLSearchParams(filter)}`))];
  if (request !== requests) return; // a later request has been sent
  const within = (rows, others) => rows.filter(Set.prototype.has, new Set(others));
  if (chosen) found = chosen.similar ? within(chosen.rows, found) : within(found, chosen.rows);
  state.rows = Object.freeze(found);
  await showMore([]);
}

/** List the next songs, after those that are `shown`. */
async function showMore(shown = state.songs) {
  const {rows} = state, n = shown.length, page = rows.slice(n, n + PAGE_SIZE), request = requests;
  const query = new URLSearchParams(page.map(row => ["rows", row]));
  const {songs} = page.length ? await fetchJson(`v1/library/songs?${query}`) : {songs: []};
  if (request !== requests) return;
  state.songs = [...shown, ...songs.map(cacheTrack)];
  const total = state.songs.length;
  say(total ? `${total.toLocaleString("en")} of ${count(rows.length, "song")}` : "no such song");
  await Alpine.nextTick();
  if (n) $("songs").querySelectorAll("li")[n]?.querySelector("button").focus();
}

/** List these songs only, `similar` ones in this order; or, for null, all. */
async function choose(rows, text, similar = false) {
  state.chosen = rows && Object.freeze({rows, text, similar});
  await list().catch(showError);
  await restoreFocus($(rows ? "clear" : "text"), {preventScroll: !similar});
}

async function findSimilar({path, name}) {
  const {songs} = await fetchJson(`v1/library/similar?${new URLSearchParams({path, top: 20})}`).catch(error => error);
  if (!songs) return say(`No similar songs of ${name}; try another.`);
  Object.assign(state.filter, {genre: "", text: "", corrected: false, disagreeing: false});
  await choose(songs.map(({row}) => row), `Similar to ${name}`, true);
}

/** Save the genre of songs or, for an empty text, delete it, one request after the other; then show it everywhere. */
function correct(rows, text, name, input) {
  const genre = text.trim() || null, question = genre ? `Label ${name} as ${genre}?` : `Delete the labels of ${name}?`;
  if (rows.length > 1 && !confirm(question)) return;
  waiting = waiting.then(async () => {
    await fetchJson("v1/library/corrections", json("PUT", {rows, genre, revision}));
    for (const row of rows) if (tracks.has(row)) tracks.get(row).correction = genre;
    await Promise.all([fetchJson("v1/library").then(showOverview), loadMap()]);
    say(genre ? `Saved: ${name} is ${genre}.` : `Deleted the label of ${name}.`);
  }).catch(showError).then(() => { if (input) input.value = tracks.get(rows[0])?.correction ?? ""; });
}

// ---- genres in the tags of files

/** Send a request, and show its files; `verb`: what happens to them. */
async function runTags(verb, body, path = "v1/library/tags") {
  const {tags} = state, status = body.dry_run ? "Reading the tags in the files …" : "Working …";
  Object.assign(tags, {status, files: [], changes: 0, canUndo: false});
  try {
    const {counts, files} = await fetchJson(path, json("POST", body));
    const others = ["skipped", "failed"].filter(name => counts[name]);
    tags.status = `${[`${count(counts.changed, "file")} ${verb}`,
      ...others.map(name => `${counts[name].toLocaleString("en")} ${name}`)].join(", ")}.`;
    tags.files = Object.freeze(files.sort((a, b) => OUTCOMES.indexOf(a.outcome) - OUTCOMES.indexOf(b.outcome)));
    if (body.dry_run) tags.changes = counts.changed;
  } catch (error) {
    tags.status = error.message;
  }
  tags.canUndo = await fetchJson("v1/library").then(({tags_written}) => tags_written, () => false);
  if (!$("tags").contains(document.activeElement)) $("tags-close").focus();
}
const queueTags = (...request) => { waiting = waiting.then(() => runTags(...request)); };

function proposeTags() {
  if (!$("tags").open) $("tags").showModal();
  proposed = {rows: state.rows, revision, mode: state.tags.mode};
  queueTags("would be changed", {...proposed, dry_run: true});
}

// ---- player

const playRow = row => Number.isInteger(row) && fetchTrack(row).then(play).catch(showError);
function play(song) {
  state.playing = song;
  $("audio").src = address(`v1/library/songs/${song.row}/audio`);
  $("audio").play().catch(() => {}); // the error event reports it
}

Alpine.data("library", () => ({
  state, details, drawMap, hover, choose, findSimilar, correct, play, playRow, proposeTags,
  coverOf: ({row}) => `v1/library/songs/${row}/cover?revision=${revision}`,
  showGenre: genre => list({genre: genre === state.filter.genre ? "" : genre}).catch(showError),
  list: changes => list(changes).catch(showError),
  showMore: () => showMore().catch(showError),
  savePlaylist: () => fetchBytes("v1/library/playlist", json("POST", {rows: state.rows, revision}))
    .then(bytes => saveFile(new Blob([bytes]), "songs.m3u8")).catch(showError),
  writeTags: () => queueTags("changed", {...proposed, dry_run: false}),
  undoTags: () => queueTags("restored", {}, "v1/library/tags/undo"),
  zoomBy: factor => map.zoomBy(factor),
}));

try {
  Alpine.start();
  await Promise.all([loadCard(), startMap().catch(() => { state.hasMap = false; })]); // with the genres' colors
  await follow();
  setInterval(() => { if (!document.hidden) follow().catch(() => {}); }, 1000 * POLL_SECONDS);
} catch (error) {
  $("about").textContent = error.message;
}
