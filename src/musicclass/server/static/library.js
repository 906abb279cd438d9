// A library's table: its map, its genres, its songs, and their corrections.
import {address, fetchJson, loadCard, send} from "./api.js";
import {$, count, createElement, percent, saveFile} from "./dom.js";
import {offerTags} from "./library-tags.js";
import {confidenceText, cssColor, genreColor, genreLabel} from "./prediction.js";

const PAGE_SIZE = 50, POLL_SECONDS = 5, TYPING_SECONDS = .15; // songs
const tracks = new Map(); // songs by row
let overview = {}, revision = "", rows = []; // of the table: its numbers, its state, the rows that are listed
let map = null, genre = "", chosen = null, playing = null, hovered = null;
let requests = 0, typing = 0, saving = Promise.resolve();

const say = text => { $("total").textContent = text; };
const showError = error => say(error.message);
const json = (method, body) => ({method, headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
async function fetchBytes(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw new Error((await response.json()).detail);
  return response.arrayBuffer();
}

const cacheTrack = song => tracks.set(song.row, song).get(song.row);
const fetchTrack = async row => tracks.get(row) ?? cacheTrack(await fetchJson(`v1/library/songs/${row}`));

/** A song's genre, and what it rests on. */
function details(song) {
  const {genre: predicted, correction, tags, genre_tag, year} = song, sure = confidenceText(song);
  const reason = correction ? `corrected; predicted: ${predicted}, ${sure}` : sure;
  const texts = [reason, tags, genre_tag && `tagged ${genre_tag}`, year].filter(Boolean);
  return [genreLabel(correction ?? predicted), ` ${texts.join(" · ")}`];
}

// ---- map

async function startMap() {
  try {
    const {SongMap} = await import("./map.js");
    map = new SongMap($("map"), {hover, click: row => row !== null && fetchTrack(row).then(play).catch(showError),
      select: found => choose(`${count(found.length, "song")} selected on the map`, found), colorOf: genreColor});
  } catch {
    $("map-about").textContent = "No map: this browser has no WebGL 2, or musicclass was built without d3 and twgl.js "
      + "(python hatch_build.py, with npm). The list below has all songs.";
    $("map-box").hidden = $("map-tools").hidden = $("map-buttons").hidden = true;
  }
}

async function loadMap() {
  if (!map) return;
  map.show(await fetchBytes("v1/library/map"));
  $("map").ariaLabel = `Map of ${count(map.data.songs, "song")}; the list below has the same songs`;
  if (map.data.year.some(Boolean) && $("color").length < 4) $("color").append(new Option("by year", "year"));
}

async function hover(row) {
  const tip = $("tip"), song = (hovered = row) === null ? null : await fetchTrack(row).catch(() => null);
  if (hovered !== row) return;
  tip.hidden = !song;
  if (!song) return;
  const [x, y] = map.at(row);
  tip.replaceChildren(`${song.name}: `, ...details(song));
  tip.style.left = `${Math.max(0, Math.min($("map").clientWidth - tip.offsetWidth, x + 12))}px`;
  tip.style.top = `${y + 14}px`;
}

// ---- overview

function showOverview() {
  const {songs, name, failed, genres, corrected, model_genres, tagged} = overview, causes = Object.entries(failed);
  const n_failed = causes.reduce((sum, [, n]) => sum + n, 0), reasons = causes.map(([status, n]) => `${n} ${status}`);
  $("about").textContent = `${count(songs, "song")} in ${name}`
    + (n_failed ? `; ${count(n_failed, "file")} without a genre: ${reasons.join(", ")}.` : ".");
  $("corrected").textContent = `${count(corrected, "song has a manual label", "songs have manual labels")}.`;
  $("train").textContent = `musicclass train ${name}.corrections.csv --out runs/mine`;
  $("disagreeing-label").hidden = !tagged;
  const names = [...new Set([...model_genres, ...Object.keys(genres)])].filter(each => each !== "unknown").sort();
  $("genres").replaceChildren(...names.map(value => createElement("option", {value})));
  const shares = Object.entries({...genre && {[genre]: 0}, ...genres}).sort(([, a], [, b]) => b - a);
  const filter = each => () => { genre = genre === each ? "" : each; showOverview(); list().catch(showError); };
  const focused = document.activeElement?.title;
  $("share").replaceChildren(...shares.map(([each, n]) =>
    createElement("i", {title: each, onclick: filter(each), css: {"--genre": cssColor(each), "flex-grow": n}})));
  $("genre-buttons").replaceChildren(...shares.map(([each, n]) =>
    createElement("button", {type: "button", title: each, ariaPressed: String(each === genre), onclick: filter(each)},
      genreLabel(each), createElement("span", {}, `${n.toLocaleString("en")} · ${percent(n / songs)}`))));
  [...$("genre-buttons").children].find(({title}) => title && title === focused)?.focus();
}

const loadOverview = async () => { overview = await fetchJson("v1/library"); showOverview(); };

/** Follow the table, which `musicclass library --watch` changes. */
async function poll() {
  const {songs} = overview, next = document.hidden ? {revision} : await fetchJson("v1/library");
  if (next.revision === revision) return;
  overview = next;
  ({revision} = next);
  chosen = null;
  tracks.clear(); // by rows that are others' now
  $("songs").replaceChildren();
  $("playing-genre").disabled = true;
  if (map) map.playing = null;
  showOverview();
  await Promise.all([loadMap(), list()]);
  say(`The table has changed: ${count(next.songs, "song")} instead of ${songs.toLocaleString("en")}.`);
}

// ---- list

/** List the songs that match the search and the filters, and light them up in the map. */
async function list() {
  const request = ++requests, query = new URLSearchParams({order: $("order").value, text: $("text").value, genre,
    disagreeing: $("disagreeing").checked, ...$("corrected-only").checked && {corrected: true}});
  let found = [...new Uint32Array(await fetchBytes(`v1/library/rows?${query}`))];
  if (request !== requests) return; // a later request has been sent
  if (chosen) {
    const [ordered, others] = chosen.similar ? [chosen.rows, new Set(found)] : [found, new Set(chosen.rows)];
    found = ordered.filter(row => others.has(row));
  }
  rows = found;
  Object.assign($("clear"), {hidden: !chosen, textContent: `${chosen?.text} ×`, ariaLabel: `Clear: ${chosen?.text}`});
  $("playlist").disabled = $("save-all").disabled = !rows.length;
  map?.recolor(rows.length < overview.songs ? rows : null);
  $("songs").replaceChildren();
  await showMore(request);
}

async function showMore(request = requests) {
  const shown = $("songs").children.length, page = rows.slice(shown, shown + PAGE_SIZE);
  const query = new URLSearchParams(page.map(row => ["rows", row]));
  const {songs} = page.length ? await fetchJson(`v1/library/songs?${query}`) : {songs: []};
  if (request !== requests) return;
  $("songs").append(...songs.map(song => listItem(cacheTrack(song))));
  const total = $("songs").children.length;
  say(total ? `${total.toLocaleString("en")} of ${count(rows.length, "song")}` : "no such song");
  $("more").hidden = total >= rows.length;
}

/** List these songs only, `similar` ones in this order; without text: all. */
function choose(text, chosenRows, similar = false) {
  chosen = text && {text, rows: chosenRows, similar};
  list().then(() => { // the focus was in the list, or on what is hidden now
    const {activeElement: focused, body} = document;
    if (focused === body || !focused.checkVisibility()) $(text ? "clear" : "text").focus({preventScroll: !similar});
  }).catch(showError);
}

function listItem(song) {
  const {row, name, path, genre: predicted, top_genre} = song;
  const button = (text, ariaLabel, onclick) => createElement("button", {type: "button", ariaLabel, onclick}, text);
  const input = createElement("input", {
    className: "correction", maxLength: 100, autocomplete: "off", placeholder: top_genre,
    ariaLabel: `Manual label of ${name}`, value: song.correction ?? "",
    onchange: () => correct([row], input.value, name),
  });
  input.setAttribute("list", "genres");
  const item = createElement("li", {}, button("Play", `Play ${name}`, () => play(song)),
    createElement("div", {className: "track-name"}, createElement("b", {title: path}, name),
      createElement("small", {className: "muted"}, ...details(song))),
    createElement("div", {className: "buttons"}, input, ...predicted === "unknown" ? []
      : [button("Confirm", `Confirm: ${name} is ${predicted}`, () => correct([row], predicted, name))],
    ...overview.embedded ? [button("Similar", `Songs similar to ${name}`, () => findSimilar(song))] : []));
  item.dataset.row = row;
  return item;
}

async function findSimilar({path, name}) {
  const {songs} = await fetchJson(`v1/library/similar?${new URLSearchParams({path, top: 20})}`).catch(error => error);
  if (!songs) return say(`No similar songs of ${name}; try another.`);
  genre = $("text").value = "";
  $("corrected-only").checked = $("disagreeing").checked = false;
  showOverview();
  choose(`Similar to ${name}`, songs.map(({row}) => row), true);
}

// ---- corrections

/** Save the genre of songs or, for an empty text, delete it, one request after the other; then show it everywhere. */
function correct(changed, text, name) {
  const label = text.trim() || null, body = () => ({rows: changed, genre: label, revision});
  saving = saving.then(() => fetchJson("v1/library/corrections", json("PUT", body()))).then(async () => {
    for (const row of changed) if (tracks.has(row)) tracks.get(row).correction = label;
    await Promise.all([loadOverview(), loadMap()]);
    say(label ? `Saved: ${name} is ${label}.` : `Deleted the label of ${name}.`);
  }).catch(showError).finally(() => {
    const rowsOf = new Set(changed), items = [...$("songs").children];
    for (const item of items.filter(({dataset}) => rowsOf.has(Number(dataset.row)))) {
      const song = tracks.get(Number(item.dataset.row));
      item.querySelector("small").replaceChildren(...details(song));
      item.querySelector("input").value = song.correction ?? "";
    }
    if (playing) $("playing-genre").value = tracks.get(playing.row)?.correction ?? "";
  });
}

$("save-all").addEventListener("click", () => {
  const text = $("label-all").value.trim(), songs = count(rows.length, "song");
  if (confirm(text ? `Label ${songs} as ${text}?` : `Delete the labels of ${songs}?`)) correct(rows, text, songs);
});
$("playlist").addEventListener("click", () => {
  fetchBytes("v1/library/playlist", json("POST", {rows, revision}))
    .then(bytes => saveFile(new Blob([bytes]), "songs.m3u8")).catch(showError);
});

// ---- player

function play(song) {
  playing = song;
  $("playing").hidden = $("audio").hidden = false;
  $("playing-name").textContent = song.name;
  Object.assign($("playing-genre"), {disabled: false, value: song.correction ?? "", placeholder: song.top_genre});
  $("audio").src = address(`v1/library/songs/${song.row}/audio`);
  $("audio").play().catch(() => {}); // the error event reports it
  if (map) map.playing = song.row;
  map?.schedule();
}
$("playing-genre").addEventListener("change", ({target}) => correct([playing.row], target.value, playing.name));
$("audio").addEventListener("error", () => {
  $("audio").hidden = true;
  $("playing-name").textContent = `${playing.name}: can't be read, or not be played by this browser.`;
});
$("audio").addEventListener("ended", () => { // the next of the list
  const next = rows[rows.indexOf(playing.row) + 1];
  if (next !== undefined) fetchTrack(next).then(play).catch(showError);
});

for (const id of ["order", "corrected-only", "disagreeing", "text"]) $(id).addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => list().catch(showError), 1000 * TYPING_SECONDS);
});
for (const [id, onclick] of Object.entries({
  "more": () => {
    const shown = $("songs").children.length;
    showMore().then(() => $("songs").children[shown]?.querySelector("button").focus()).catch(showError);
  },
  "clear": () => choose(), "zoom-reset": () => map.zoomBy(1e-9),
  "zoom-in": () => map.zoomBy(2), "zoom-out": () => map.zoomBy(.5),
  "lasso": ({target}) => { target.ariaPressed = String(target.ariaPressed !== "true"); },
})) $(id).addEventListener("click", onclick);
addEventListener("keydown", ({key}) => { if (key === "Escape") hover(null); });
$("color").addEventListener("change", ({target}) => { map.by = target.value; map.recolor(); });

try {
  await Promise.all([loadCard(), startMap()]); // with the genres' colors
  await loadOverview();
  ({revision} = overview);
  $("all").hidden = false;
  await Promise.all([loadMap(), list()]);
  offerTags(overview, () => ({rows, revision}));
  setInterval(() => poll().catch(() => {}), 1000 * POLL_SECONDS);
} catch (error) {
  $("about").textContent = error.message;
}
