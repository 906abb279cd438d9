// The page of songs: files in, cards out.
import {$, bars, card, colour, make, percent, reason, save, verdict} from "./common.js";
import {compare, forgetOrder} from "./compare.js";
import {takeFiles} from "./files.js";
import {askServer, explainOnServer} from "./server.js";
import {askHere, explainHere, startHere} from "./local.js";
import {Player} from "./player.js";
import {drawCard} from "./picture.js";
import {showWhy} from "./why.js";

const AT_ONCE = 3, GATHER = 40; // songs; ms for which news are gathered before all is arranged
const songs = [];
let busy = 0, added = 0, arranging = null, news = "";

card().catch(error => { $("count").textContent = error.message; });
takeFiles(add);

// ---- hearing

function add(files, leftOut = 0) {
  for (const file of files) {
    const song = {file, name: file.name, state: "waiting", number: added++, stop: new AbortController()};
    songs.push(song);
    show(song);
  }
  next();
  arrange(leftOut ? `${leftOut} ${leftOut === 1 ? "file that is no song was" : "files that are no songs were"} left out. ` : "");
}

function next() {
  const song = songs.find(each => each.state === "waiting"), {checked: here, disabled: loading} = $("local");
  if (!song || loading || busy >= (here ? 1 : AT_ONCE)) return;
  song.state = "busy";
  busy += 1;
  hear(song, here).finally(() => { busy -= 1; next(); });
  next();
}

async function hear(song, here) {
  const {file, name, stop} = song, tell = (words, share) => {
    song.node.querySelector("progress").value = share;
    song.node.querySelector(".progress span").textContent = words;
  };
  try {
    const limit = (await card()).limits.bytes;
    if (!here && file.size > limit) {
      throw new Error(`${name}: larger than ${limit / 1e6} MB, the most that this server takes at once`);
    }
    const answer = await (here ? askHere : askServer)(file, name, tell, stop.signal);
    stop.signal.throwIfAborted();
    Object.assign(song, {here, answer, state: "done"});
    showAnswer(song);
    arrange(`${name}: ${verdict(answer)}. `);
  } catch (error) {
    if (!songs.includes(song)) return; // removed
    if (stop !== song.stop) { // to be heard anew, elsewhere
      song.state = "waiting";
      tell("Waiting", 0);
      return;
    }
    song.state = "failed";
    song.error = error.message.startsWith(name) ? error.message : `${name}: ${error.message}`;
    song.node.querySelector(".progress").hidden = true;
    const told = song.node.querySelector(".problem");
    told.hidden = false;
    told.textContent = song.error;
    arrange();
  }
}

// ---- nothing leaves this computer

$("local").addEventListener("change", async () => {
  const state = $("local-state");
  if ($("local").checked) {
    for (const song of songs.filter(each => each.state === "busy")) { // nothing more of them may leave
      song.stop.abort();
      song.stop = new AbortController();
    }
    $("local").disabled = true;
    state.textContent = "Loading the model into this browser …";
    try {
      await startHere();
      state.textContent = "On: this browser listens by itself; you may cut the network.";
    } catch (error) {
      $("local").checked = false;
      state.textContent = error.message;
    }
    $("local").disabled = false;
    $("local").focus();
  } else {
    state.textContent = "Off: songs go to the musicclass server at this address, which keeps nothing.";
  }
  next();
});

// ---- cards

function show(song) {
  song.node = $("card").content.cloneNode(true).firstElementChild;
  const title = song.node.querySelector("h2");
  title.textContent = song.name;
  title.id = `song-${song.number}`;
  song.node.setAttribute("aria-labelledby", title.id);
  song.node.querySelector("progress").setAttribute("aria-label", `How far ${song.name} is`);
  song.node.querySelector(".progress span").textContent = "Waiting";
  const remove = song.node.querySelector(".remove");
  remove.setAttribute("aria-label", `Remove ${song.name}`);
  remove.addEventListener("click", () => {
    const following = song.node.nextElementSibling || song.node.previousElementSibling;
    discard(song);
    (following?.querySelector(".remove") || $("choose")).focus();
  });
  $("cards").append(song.node);
}

function showAnswer(song) {
  const {node, answer} = song;
  node.querySelector(".progress").hidden = true;
  node.querySelector(".answer").hidden = false;
  const told = node.querySelector(".verdict");
  told.textContent = verdict(answer);
  told.style.setProperty("--genre", colour(answer.genre));
  node.querySelector(".reason").textContent = reason(answer);
  bars(node.querySelector(".bars"), answer.probabilities);
  const genres = [...new Set(answer.segments.map(part => part.genre))];
  node.querySelector(".legend").replaceChildren(...genres.map(genre =>
    make("li", {text: genre ?? "silence", css: {"--genre": colour(genre)}})));
  song.url = URL.createObjectURL(song.file);
  song.player = new Player(node.querySelector(".heard"), song.url, answer);
  node.querySelector(".why").addEventListener("click", () => because(song));
  node.querySelector(".picture").addEventListener("click", () => drawCard(song.name, answer).then(blob =>
    save(blob, `${song.name}.png`)));
}

async function because(song) {
  const button = song.node.querySelector(".why"), section = song.node.querySelector(".because");
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  section.hidden = open;
  if (open || song.why) return;
  const told = make("p", {className: "quiet", role: "status", text: "Covering one part after the other, to see which it rests on …"});
  section.replaceChildren(told);
  const tell = share => { told.textContent = `Covering one part after the other: ${percent(share)}`; };
  const here = song.here || $("local").checked;
  song.why = here ? explainHere(song.file, song.name, tell) : explainOnServer(song.file, song.name);
  try {
    showWhy(section, song.answer, await song.why, spans => song.player.playSpans(spans));
  } catch (error) {
    song.why = null;
    section.replaceChildren(make("p", {className: "problem", text: error.message}));
  }
}

function discard(song) {
  songs.splice(songs.indexOf(song), 1);
  song.stop.abort();
  song.player?.remove();
  if (song.url) URL.revokeObjectURL(song.url);
  song.node.remove();
  arrange();
}

$("clear").addEventListener("click", () => {
  [...songs].forEach(discard);
  $("choose").focus();
});

// ---- order, filter, compare

const sure = song => song.answer.confidence;
const answered = order => (a, b) => !a.answer - !b.answer || (a.answer ? order(a, b) : a.number - b.number); // the rest last
const ORDERS = {
  added: (a, b) => a.number - b.number,
  name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  genre: answered((a, b) => a.answer.genre.localeCompare(b.answer.genre) || sure(b) - sure(a)),
  sure: answered((a, b) => sure(b) - sure(a)),
  unsure: answered((a, b) => sure(a) - sure(b)),
};

const matches = song => $("filter").value.toLowerCase().split(/\s+/).filter(Boolean).every(word =>
  `${song.name} ${song.answer ? `${song.answer.genre} ${song.answer.best_guess}` : song.state}`.toLowerCase().includes(word));

/** Bring the page up to date, soon: many songs may end at once. */
function arrange(what = "") {
  news = what || news;
  arranging ??= setTimeout(arrangeNow, GATHER);
}

function arrangeNow() {
  arranging = null;
  $("tools").hidden = !songs.length;
  $("drop").classList.toggle("small", songs.length > 0);
  const sorted = [...songs].sort(ORDERS[$("order").value]);
  sorted.forEach((song, i) => {
    song.node.hidden = !matches(song);
    if ($("cards").children[i] !== song.node) $("cards").insertBefore(song.node, $("cards").children[i] || null);
  });
  const shown = songs.filter(matches).length, done = songs.filter(song => song.answer).length;
  const failed = songs.filter(song => song.state === "failed").length;
  const counts = [`${done} of ${songs.length} heard`];
  if (failed) counts.push(`${failed} can't be used`);
  if (shown < songs.length) counts.push(`${shown} shown`);
  $("count").textContent = songs.length ? `${news}${counts.join(", ")}.` : news;
  news = "";
  if (!$("compare").hidden) compare(sorted.filter(song => song.answer && matches(song)));
}

function view(table) {
  $("as-cards").setAttribute("aria-pressed", String(!table));
  $("as-table").setAttribute("aria-pressed", String(table));
  $("cards").hidden = table;
  $("compare").hidden = !table;
  arrange();
}
$("as-cards").addEventListener("click", () => view(false));
$("as-table").addEventListener("click", () => view(true));
$("filter").addEventListener("input", () => arrange());
$("order").addEventListener("change", () => { forgetOrder(); arrange(); });

// ---- files out

const plain = song => {
  if (!song.answer) return {file: song.name, error: song.error || song.state};
  const {peaks, explanation, ...told} = song.answer;
  return {...told, file: song.name};
};
$("json").addEventListener("click", () =>
  save(new Blob([JSON.stringify(songs.map(plain), null, 1)], {type: "application/json"}), "genres.json"));
$("csv").addEventListener("click", async () => {
  const genres = (await card()).genres, quoted = value => {
    const text = String(value ?? "");
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // no formulas from file names
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const rows = [["file", "genre", "best_guess", "confidence", "duration", ...genres, "error"]];
  for (const song of songs) {
    const {answer} = song;
    rows.push(answer
      ? [song.name, answer.genre, answer.best_guess, answer.confidence.toFixed(6), answer.duration.toFixed(3),
         ...genres.map(name => answer.probabilities[name].toFixed(6)), ""]
      : [song.name, "", "", "", "", ...genres.map(() => ""), song.error || song.state]);
  }
  save(new Blob([rows.map(row => row.map(quoted).join(",")).join("\r\n") + "\r\n"], {type: "text/csv"}), "genres.csv");
});
