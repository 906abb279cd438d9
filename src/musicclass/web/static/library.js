// A library's table: its map, its shares, its songs, and what their owner says of them.
import {$, ask, bars, card, colour, faded, inks, inWords, make, percent, surface} from "./common.js";

const NEAR = 12, PAGE = 50; // CSS pixels; songs at once
const known = new Map(), hidden = new Set(); // songs by row; genres that the map leaves out
let map = null, places = [], playing = null, offset = 0, asked = 0;
let answers = Promise.resolve(); // corrections, one after the other

const tell = text => { $("total").textContent = text; };
const complain = error => tell(error.message);

/** The one object for a song, with what the server says of it now. */
function remember(song) {
  if (!known.has(song.row)) known.set(song.row, {});
  return Object.assign(known.get(song.row), song);
}

// ---- map

function drawMap() {
  const {context, width, height} = surface($("map")), ink = inks(), edge = 14;
  context.fillStyle = ink.track;
  context.globalAlpha = .35;
  context.fillRect(0, 0, width, height);
  context.globalAlpha = 1;
  places = [];
  map.rows.forEach((row, i) => {
    if (hidden.has(map.genres[i])) return;
    const x = edge + (map.x[i] - map.left) / map.wide * (width - 2 * edge);
    const y = height - edge - (map.y[i] - map.bottom) / map.tall * (height - 2 * edge);
    places.push({x, y, i});
    context.fillStyle = faded(colour(map.genres[i]), .3 + .7 * map.confidence[i]);
    context.beginPath();
    context.arc(x, y, map.rows.length > 3000 ? 2.5 : 5, 0, 7);
    context.fill();
  });
  const found = places.find(place => map.rows[place.i] === playing);
  if (!found) return;
  context.strokeStyle = ink.ink;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(found.x, found.y, 9, 0, 7);
  context.stroke();
}

function nearest(event) {
  const box = $("map").getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  let best = null, least = NEAR ** 2;
  for (const place of places) {
    const distance = (place.x - x) ** 2 + (place.y - y) ** 2;
    if (distance < least) [best, least] = [place, distance];
  }
  return best;
}

function hover(event) {
  const found = nearest(event), tip = $("tip");
  tip.hidden = !found;
  if (!found) return;
  const told = {genre: map.genres[found.i], best_guess: map.guesses[found.i], confidence: map.confidence[found.i]};
  tip.textContent = `${map.names[found.i]}: ${inWords(told)}`;
  const room = $("map").clientWidth - tip.offsetWidth;
  tip.style.left = `${Math.max(0, Math.min(room, found.x + 12))}px`;
  tip.style.top = `${found.y + 14}px`;
}

async function showMap() {
  map = await ask("/v1/library/map");
  [map.left, map.bottom] = [Math.min(...map.x), Math.min(...map.y)];
  [map.wide, map.tall] = [Math.max(...map.x) - map.left || 1, Math.max(...map.y) - map.bottom || 1];
  $("map-about").textContent = `Songs that sound alike to the model lie near each other; ${percent(map.spread)} of what sets them `
    + "apart shows here. The paler, the less sure. Point at a song for its name, click to play it; the list below holds the same songs.";
  $("map").setAttribute("aria-label", `Map of ${map.rows.length} songs; the list below holds the same`);
  const genres = [...new Set(map.genres)].sort();
  $("legend").replaceChildren(...genres.map(genre => {
    const box = make("input", {type: "checkbox", checked: true});
    box.addEventListener("change", () => { hidden[box.checked ? "delete" : "add"](genre); drawMap(); });
    return make("li", {css: {"--genre": colour(genre)}, children: [make("label", {children: [box, ` ${genre}`]})]});
  }));
  new ResizeObserver(drawMap).observe($("map").parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
  $("map").addEventListener("mousemove", hover);
  $("map").addEventListener("mouseleave", () => { $("tip").hidden = true; });
  $("map").addEventListener("click", event => {
    const found = nearest(event);
    if (found) ask(`/v1/library/songs/${map.rows[found.i]}`).then(song => play(remember(song))).catch(complain);
  });
}

// ---- overview

async function showOverview() {
  const told = await ask("/v1/library"), all = told.songs;
  const failed = Object.entries(told.failed), lost = failed.reduce((sum, [, count]) => sum + count, 0);
  $("about").textContent = `${all.toLocaleString("en")} songs in ${told.name}.`;
  $("failed").textContent = lost ? `${lost} more ${lost === 1 ? "file" : "files"} can't be used: ${failed.map(([why, count]) => `${count} ${why}`).join(", ")}.` : "";
  bars($("shares"), Object.fromEntries(Object.entries(told.genres).map(([genre, count]) => [genre, count / all])));
  $("corrected").textContent = `${told.corrected} ${told.corrected === 1 ? "song has" : "songs have"} a genre by hand.`;
  $("train").textContent = `musicclass train ${told.name}.corrections.csv --out mine`;
  const names = [...new Set([...told.model_genres, ...Object.keys(told.genres)])].sort(), chosen = $("genre").value;
  $("genres").replaceChildren(...names.filter(name => name !== "unknown").map(value => make("option", {value})));
  const genres = chosen && !(chosen in told.genres) ? {...told.genres, [chosen]: 0} : told.genres;
  $("genre").replaceChildren(make("option", {value: "", text: "all"}),
    ...Object.entries(genres).map(([value, count]) => make("option", {value, text: `${value} (${count})`})));
  $("genre").value = chosen;
}

// ---- songs

async function list(more = false) {
  const mine = ++asked, query = new URLSearchParams({
    order: $("order").value, text: $("text").value, genre: $("genre").value, offset: more ? offset : 0, limit: PAGE});
  if ($("only-corrected").checked) query.set("corrected", true);
  const {total, songs} = await ask(`/v1/library/songs?${query}`);
  if (mine !== asked) return; // a later question has been answered
  if (!more) {
    $("songs").replaceChildren(make("table", {className: "full", children: [
      make("thead", {children: [make("tr", {children: ["Song", "Told as", "Sure", "By hand", "Hear it"].map(text =>
        make("th", {text, scope: "col"}))})]}),
      make("tbody"),
    ]}));
    offset = 0;
  }
  $("songs").querySelector("tbody").append(...songs.map(song => row(remember(song))));
  offset += songs.length;
  tell(total ? `${offset.toLocaleString("en")} of ${total.toLocaleString("en")}` : "no such song");
  $("more").hidden = offset >= total;
}

/** Whether the server would list a song now. */
const listed = song => ($("genre").value === "" || (song.correction ?? song.genre) === $("genre").value)
  && (!$("only-corrected").checked || song.correction !== null);

function row(song) {
  const hand = make("input", {className: "hand", maxLength: 100, autocomplete: "off", placeholder: song.best_guess});
  hand.setAttribute("list", "genres");
  hand.setAttribute("aria-label", `Genre of ${song.name} by hand`);
  hand.dataset.row = song.row;
  hand.value = song.correction ?? "";
  hand.addEventListener("change", () => correct(song, hand.value));
  const right = make("button", {type: "button", text: "Right"}), heard = make("button", {type: "button", text: "Play"});
  right.setAttribute("aria-label", `Right: ${song.name} is ${song.best_guess}`);
  right.addEventListener("click", () => correct(song, song.best_guess));
  heard.setAttribute("aria-label", `Play ${song.name}`);
  heard.addEventListener("click", () => play(song));
  const told = song.genre === "unknown" ? `unknown (perhaps ${song.best_guess})` : song.genre;
  return make("tr", {children: [
    make("th", {scope: "row", className: "song", text: song.name, title: song.path}),
    make("td", {children: [make("span", {className: "dot", text: told, css: {"--genre": colour(song.genre)}})]}),
    make("td", {text: percent(song.confidence)}),
    make("td", {className: "by-hand", children: [hand, right]}),
    make("td", {children: [heard]}),
  ]});
}

/** Keep a genre, or none, and show it wherever the song stands. */
function correct(song, typed) {
  const genre = typed.trim(), address = `/v1/library/songs/${song.row}/correction`, {path} = song, before = listed(song);
  answers = answers.then(async () => {
    try {
      remember(genre
        ? await ask(address, {method: "PUT", headers: {"Content-Type": "application/json"}, body: JSON.stringify({genre, path})})
        : await ask(`${address}?${new URLSearchParams({path})}`, {method: "DELETE"}));
      if ($("songs").querySelector(`[data-row="${song.row}"]`)) offset += listed(song) - before; // so that "more" skips none
      await showOverview();
      tell(genre ? `${song.name}: ${genre}, kept` : `${song.name}: forgotten`);
    } catch (error) {
      complain(error);
    }
    document.querySelectorAll(`[data-row="${song.row}"]`).forEach(input => { input.value = song.correction ?? ""; });
  });
}

function play(song) {
  playing = song.row;
  $("playing").hidden = false;
  $("playing-name").textContent = song.name;
  $("playing-genre").dataset.row = song.row;
  $("playing-genre").value = song.correction ?? "";
  $("playing-genre").placeholder = song.best_guess;
  $("playing-genre").onchange = () => correct(song, $("playing-genre").value);
  $("audio").hidden = false;
  $("audio").src = `/v1/library/songs/${song.row}/audio`;
  $("audio").play().catch(() => {});
  drawMap();
}

$("audio").addEventListener("error", async () => {
  const failed = playing;
  $("audio").hidden = true;
  const answer = await fetch($("audio").src, {headers: {Range: "bytes=0-0"}}).catch(() => null);
  const why = answer?.ok ? "this browser can't play its format" : "its file can't be reached from here";
  if (playing === failed) $("playing-name").textContent = `${known.get(failed).name}: ${why}.`;
});
for (const id of ["order", "genre", "only-corrected"]) $(id).addEventListener("change", () => list().catch(complain));
$("text").addEventListener("input", () => list().catch(complain));
$("more").addEventListener("click", () => list(true).catch(complain));

async function main() {
  await card(); // colours
  await showOverview();
  $("all").hidden = false;
  await Promise.all([showMap(), list()]);
}
main().catch(error => { $("about").textContent = error.message; });
