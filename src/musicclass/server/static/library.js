// A library's table: its map, its genres, its songs, and their corrections.
import {fetchJson, loadCard} from "./api.js";
import {
  $, count, createElement, createTable, drawOn, keepDrawn, percent, probabilityText, themeColors, withAlpha,
} from "./dom.js";
import {genreColor, genreLabel, summary} from "./prediction.js";

const MARGIN = 14, POINTER_RADIUS = 12, MANY_SONGS = 3000, PAGE_SIZE = 50; // CSS pixels; songs
const COLUMNS = ["Song", "Predicted", "Confidence", "Manual label", "Listen"];
const tracks = new Map(), hidden = new Set(); // songs by row; genres that the map doesn't show
let map = null, points = [], playing = null, offset = 0, requests = 0, saving = Promise.resolve();

const showError = error => { $("total").textContent = error.message; };

/** The one object of a song, with the server's newest values. */
function cacheTrack(song) {
  if (!tracks.has(song.row)) tracks.set(song.row, {});
  return Object.assign(tracks.get(song.row), song);
}

// ---- map

async function showMap() {
  map = await fetchJson("v1/library/map");
  $("map-about").textContent = "Close together: songs with similar probabilities (two principal components, "
    + `${percent(map.explained_variance)} of the variance). Pale: low confidence. Click a song to play it.`;
  $("map").ariaLabel = `Map of ${count(map.rows.length, "song")}; the list below has the same songs`;
  $("legend").replaceChildren(...[...new Set(map.genres)].sort().map(genre => {
    const toggle = ({target}) => { hidden[target.checked ? "delete" : "add"](genre); drawMap(); };
    const box = createElement("input", {type: "checkbox", checked: true, onchange: toggle});
    return createElement("li", {}, createElement("label", {}, box, genreLabel(genre)));
  }));
  keepDrawn($("map"), drawMap);
}

function drawMap() {
  drawOn($("map"), (context, width, height) => {
    const scale = (values, size) => {
      const low = Math.min(...values), span = Math.max(...values) - low || 1;
      return value => MARGIN + (value - low) / span * (size - 2 * MARGIN);
    };
    const toX = scale(map.x, width), toY = scale(map.y, height), radius = map.rows.length > MANY_SONGS ? 2.5 : 5;
    const circle = ({x, y}, r) => { context.beginPath(); context.arc(x, y, r, 0, 7); };
    points = map.rows.map((row, i) => ({
      row, x: toX(map.x[i]), y: height - toY(map.y[i]), name: map.names[i],
      genre: map.genres[i], top_genre: map.top_genres[i], confidence: map.confidence[i],
    })).filter(({genre}) => !hidden.has(genre));
    for (const point of points) {
      context.fillStyle = withAlpha(genreColor(point.genre), .3 + .7 * point.confidence);
      circle(point, radius);
      context.fill();
    }
    const current = points.find(({row}) => row === playing);
    if (!current) return;
    Object.assign(context, {strokeStyle: themeColors().ink, lineWidth: 2});
    circle(current, 9);
    context.stroke();
  });
}

function pointAt({offsetX, offsetY}) {
  const distance = ({x, y}) => Math.hypot(x - offsetX, y - offsetY);
  const nearest = points.reduce((best, point) => best && distance(best) <= distance(point) ? best : point, null);
  return nearest && distance(nearest) < POINTER_RADIUS ? nearest : null;
}

$("map").addEventListener("mousemove", event => {
  const point = pointAt(event), tip = $("tip");
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = `${point.name}: ${summary(point)}`;
  tip.style.left = `${Math.max(0, Math.min($("map").clientWidth - tip.offsetWidth, point.x + 12))}px`;
  tip.style.top = `${point.y + 14}px`;
});
$("map").addEventListener("mouseleave", () => { $("tip").hidden = true; });
$("map").addEventListener("click", event => {
  const point = pointAt(event);
  if (point) fetchJson(`v1/library/songs/${point.row}`).then(song => play(cacheTrack(song))).catch(showError);
});

// ---- overview

async function showOverview() {
  const {songs, name, failed, genres, corrected, model_genres} = await fetchJson("v1/library");
  const causes = Object.entries(failed), n_failed = causes.reduce((sum, [, n]) => sum + n, 0);
  const reasons = causes.map(([status, n]) => `${n} ${status}`).join(", ");
  $("about").textContent = `${count(songs, "song")} in ${name}`
    + (n_failed ? `; ${count(n_failed, "file")} without a genre: ${reasons}.` : ".");
  $("corrected").textContent = `${count(corrected, "song has a manual label", "songs have manual labels")}.`;
  $("train").textContent = `musicclass train ${name}.corrections.csv --out runs/mine`;
  const names = [...new Set([...model_genres, ...Object.keys(genres)])].filter(genre => genre !== "unknown").sort();
  $("genres").replaceChildren(...names.map(value => createElement("option", {value})));
  const chosen = $("genre").value, counts = chosen ? {[chosen]: 0, ...genres} : genres;
  $("genre").replaceChildren(createElement("option", {value: ""}, "all"),
    ...Object.entries(counts).map(([value, n]) => createElement("option", {value}, `${value} (${n})`)));
  $("genre").value = chosen;
}

// ---- songs

async function listSongs(more = false) {
  const request = ++requests, query = new URLSearchParams({order: $("order").value, text: $("text").value,
    genre: $("genre").value, offset: more ? offset : 0, limit: PAGE_SIZE});
  if ($("only-corrected").checked) query.set("corrected", true);
  const {total, songs} = await fetchJson(`v1/library/songs?${query}`);
  if (request !== requests) return; // a later request has been sent
  const rows = songs.map(song => songRow(cacheTrack(song)));
  if (more) $("songs").querySelector("tbody").append(...rows);
  else $("songs").replaceChildren(createTable("", COLUMNS, rows, "full"));
  offset = (more ? offset : 0) + songs.length;
  $("total").textContent = total ? `${offset.toLocaleString("en")} of ${count(total, "song")}` : "no such song";
  $("more").hidden = offset >= total;
}

/** Whether the list, as it is filtered now, contains a song. */
const isListed = song => (!$("genre").value || (song.correction ?? song.genre) === $("genre").value)
  && (!$("only-corrected").checked || song.correction !== null);

function songRow(song) {
  const {name, path, genre, top_genre, confidence, tags} = song;
  const button = (text, ariaLabel, onclick) => createElement("button", {type: "button", ariaLabel, onclick}, text);
  const input = createElement("input", {
    className: "correction", maxLength: 100, autocomplete: "off", placeholder: top_genre,
    ariaLabel: `Manual label of ${name}`, value: song.correction ?? "", onchange: () => correct(song, input.value),
  });
  input.setAttribute("list", "genres");
  input.dataset.row = song.row;
  const cells = [
    [genreLabel(genre, genre === "unknown" ? `unknown (closest to ${top_genre})` : genre),
      createElement("small", {className: "muted"}, tags)],
    probabilityText(confidence),
    [input, ...genre === "unknown" ? []
      : [button("Confirm", `Confirm: ${name} is ${genre}`, () => correct(song, genre))]],
    button("Play", `Play ${name}`, () => play(song)),
  ];
  return createElement("tr", {}, createElement("th", {scope: "row", className: "song", title: path}, name),
    ...cells.map(cell => createElement("td", {}, ...[cell].flat())));
}

/** Save a genre or, for an empty text, delete it; one request after the other. */
function correct(song, text) {
  const genre = text.trim(), {row, path, name} = song, wasListed = isListed(song);
  const url = `v1/library/songs/${row}/correction?${new URLSearchParams({path})}`;
  const put = {method: "PUT", headers: {"Content-Type": "application/json"}, body: JSON.stringify({genre, path})};
  saving = saving.then(async () => {
    cacheTrack(await fetchJson(url, genre ? put : {method: "DELETE"}));
    const isShown = $("songs").querySelector(`[data-row="${row}"]`);
    if (isShown) offset += isListed(song) - wasListed; // so that "Show more" skips no song
    await showOverview();
    $("total").textContent = genre ? `Saved: ${name} is ${genre}.` : `Deleted the label of ${name}.`;
  }).catch(showError).finally(() => {
    for (const input of document.querySelectorAll(`[data-row="${row}"]`)) input.value = song.correction ?? "";
  });
}

function play(song) {
  playing = song.row;
  $("playing").hidden = $("audio").hidden = false;
  $("playing-name").textContent = song.name;
  const value = song.correction ?? "", onchange = ({target}) => correct(song, target.value);
  Object.assign($("playing-genre"), {value, placeholder: song.top_genre, onchange}).dataset.row = song.row;
  $("audio").src = `v1/library/songs/${song.row}/audio`;
  $("audio").play().catch(() => {}); // the error event reports it
  drawMap();
}

$("audio").addEventListener("error", () => {
  $("audio").hidden = true;
  $("playing-name").textContent = `${tracks.get(playing).name}: can't be read, or not be played by this browser.`;
});
for (const id of ["order", "genre", "only-corrected", "text"]) {
  $(id).addEventListener("input", () => listSongs().catch(showError));
}
$("more").addEventListener("click", () => listSongs(true).catch(showError));

try {
  await loadCard(); // colors
  await showOverview();
  $("all").hidden = false;
  await Promise.all([showMap(), listSongs()]);
} catch (error) {
  $("about").textContent = error.message;
}
