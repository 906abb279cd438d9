// The page of songs: files in, cards out.
import {$, bars, card, clock, colour, drawLine, make, percent, reason, save, verdict} from "./common.js";
import {askServer, explainOnServer} from "./server.js";
import {askHere, explainHere, startHere} from "./local.js";
import {Player} from "./player.js";
import {drawCard} from "./picture.js";
import {showWhy} from "./why.js";

const AT_ONCE = 3;
const SOUNDS = /\.(wav|flac|mp3|ogg|oga|opus|m4a|mp4|aac|aiff?|aifc|wma|wv|au|snd|caf|w64|ape|mka|mpc|tta|ac3|webm)$/i;
const songs = [];
let busy = 0, added = 0, sortBy = null, sortDown = false;

card().catch(error => { $("count").textContent = error.message; });

// ---- files in

function add(files, leftOut = 0) {
  for (const file of files) {
    const song = {file, name: file.name, state: "waiting", number: added++, stop: new AbortController()};
    songs.push(song);
    show(song);
  }
  $("drop").classList.toggle("small", songs.length > 0);
  $("tools").hidden = !songs.length;
  next();
  arrange(leftOut ? `${leftOut} files that are no songs were left out. ` : "");
}

function next() {
  const song = songs.find(each => each.state === "waiting");
  if (!song || busy >= ($("local").checked ? 1 : AT_ONCE)) return;
  song.state = "busy";
  busy += 1;
  hear(song).finally(() => { busy -= 1; next(); });
  next();
}

async function hear(song) {
  const tell = (words, share) => {
    song.node.querySelector("progress").value = share;
    song.node.querySelector(".progress span").textContent = words;
  };
  song.here = $("local").checked;
  try {
    const limit = (await card()).limits.bytes;
    if (!song.here && song.file.size > limit) {
      throw new Error(`${song.name}: larger than ${limit / 1e6} MB, the most that this server takes at once`);
    }
    song.answer = await (song.here ? askHere : askServer)(song.file, song.name, tell, song.stop.signal);
    song.state = "done";
    showAnswer(song);
  } catch (error) {
    song.state = "failed";
    song.error = error.message;
    song.node.querySelector(".progress").hidden = true;
    const told = song.node.querySelector(".problem");
    told.hidden = false;
    told.textContent = error.message.startsWith(song.name) ? error.message : `${song.name}: ${error.message}`;
  }
  arrange(song.answer ? `${song.name}: ${verdict(song.answer)}. ` : "");
}

async function entries(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    for (const each of some) found.push(...await entries(each));
  }
  return found;
}

function addFolder(files) {
  const shown = files.filter(file => SOUNDS.test(file.name) && !file.name.startsWith("."));
  add(shown, files.length - shown.length);
}

async function dropped(event) {
  const items = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!items.some(item => item.isDirectory)) return add([...event.dataTransfer.files]);
  const found = [];
  for (const item of items) found.push(...await entries(item));
  addFolder(found);
}

for (const [button, input] of [["choose", "files"], ["choose-folder", "folder"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    (input === "folder" ? addFolder : add)([...$(input).files]);
    $(input).value = "";
  });
}
let inside = 0;
addEventListener("dragenter", () => { inside += 1; $("drop").classList.add("over"); });
addEventListener("dragleave", () => { inside -= 1; if (!inside) $("drop").classList.remove("over"); });
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => {
  event.preventDefault();
  inside = 0;
  $("drop").classList.remove("over");
  dropped(event);
});

// ---- the microphone

let recorder = null;
async function record() {
  if (recorder) return recorder.stop();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false},
    });
  } catch (error) {
    $("count").textContent = `The microphone can't be used (${error.message}); allow it for this page, or choose a file.`;
    return;
  }
  const parts = [], begun = Date.now();
  recorder = new MediaRecorder(stream);
  const ticking = setInterval(() => { $("record").textContent = `Stop (${clock((Date.now() - begun) / 1000)})`; }, 250);
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.onstop = () => {
    clearInterval(ticking);
    stream.getTracks().forEach(track => track.stop());
    const at = new Date(begun).toTimeString().slice(0, 8).replaceAll(":", "."), kind = recorder.mimeType;
    recorder = null;
    $("record").textContent = "Record";
    $("record").setAttribute("aria-pressed", "false");
    add([new File(parts, `Recording ${at}.${kind.includes("mp4") ? "m4a" : "webm"}`, {type: kind})]);
  };
  $("record").setAttribute("aria-pressed", "true");
  $("record").textContent = "Stop (0:00)";
  recorder.start();
}
$("record").addEventListener("click", record);

// ---- nothing leaves this computer

$("local").addEventListener("change", async () => {
  const state = $("local-state");
  if (!$("local").checked) {
    state.textContent = "Off: songs go to the musicclass server at this address, which keeps nothing.";
    return;
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
  remove.addEventListener("click", () => discard(song));
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
  section.replaceChildren(make("p", {className: "quiet", text: "Covering one part after the other, to see which it rests on …", role: "status"}));
  const tell = share => { section.firstChild.textContent = `Covering one part after the other: ${percent(share)}`; };
  try {
    song.why = await (song.here ? explainHere(song.file, song.name, tell) : explainOnServer(song.file, song.name));
    showWhy(section, song.answer, song.why, spans => song.player.playSpans(spans));
  } catch (error) {
    section.replaceChildren(make("p", {className: "problem", text: error.message}));
  }
}

function discard(song) {
  song.stop.abort();
  song.player?.remove();
  if (song.url) URL.revokeObjectURL(song.url);
  song.node.remove();
  songs.splice(songs.indexOf(song), 1);
  $("tools").hidden = !songs.length;
  $("drop").classList.toggle("small", songs.length > 0);
  arrange();
}

// ---- order, filter, compare

const sure = song => song.answer ? song.answer.confidence : -1;
const genre = song => song.answer ? song.answer.genre : "~";
const ORDERS = {
  added: (a, b) => a.number - b.number,
  name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  genre: (a, b) => genre(a).localeCompare(genre(b)) || sure(b) - sure(a),
  sure: (a, b) => sure(b) - sure(a),
  unsure: (a, b) => sure(a) - sure(b),
};

const matches = song => $("filter").value.toLowerCase().split(/\s+/).filter(Boolean).every(word =>
  `${song.name} ${song.answer ? `${song.answer.genre} ${song.answer.best_guess}` : song.state}`.toLowerCase().includes(word));

function arrange(news = "") {
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
  if (!$("compare").hidden) compare();
}

function compare() {
  const done = songs.filter(song => song.answer && matches(song));
  const genres = done.length ? Object.keys(done[0].answer.probabilities).sort() : [];
  const columns = [
    {name: "Song", value: song => song.name.toLowerCase(), className: "song"},
    {name: "Genre", value: song => song.answer.genre},
    {name: "Sure", value: song => song.answer.confidence, className: "number"},
    ...genres.map(name => ({name, value: song => song.answer.probabilities[name], className: "number"})),
  ];
  const key = columns.find(column => column.name === sortBy);
  if (key) done.sort((a, b) => (key.value(a) < key.value(b) ? -1 : 1) * (sortDown ? -1 : 1));
  else done.sort(ORDERS[$("order").value]);
  const heads = columns.map(({name, className = ""}) => {
    const button = make("button", {type: "button", text: name + (name === sortBy ? (sortDown ? " ▼" : " ▲") : "")});
    button.addEventListener("click", () => {
      sortDown = sortBy === name ? !sortDown : !["Song", "Genre"].includes(name);
      sortBy = name;
      compare();
      [...$("compare").querySelectorAll("th button")].find(each => each.textContent.startsWith(name))?.focus();
    });
    const head = make("th", {scope: "col", className, children: [button]});
    if (name === sortBy) head.setAttribute("aria-sort", sortDown ? "descending" : "ascending");
    return head;
  });
  heads.splice(3, 0, make("th", {scope: "col", text: "Along it"}));
  const rows = done.map(song => {
    const {answer} = song, line = make("canvas", {className: "line", role: "img"});
    line.setAttribute("aria-label", [...new Set(answer.segments.map(part => part.genre ?? "silence"))].join(", "));
    return make("tr", {children: [
      make("th", {scope: "row", className: "song", text: song.name}),
      make("td", {children: [make("span", {className: "dot", text: answer.genre, css: {"--genre": colour(answer.genre)}})]}),
      make("td", {className: "number", text: percent(answer.confidence)}),
      make("td", {children: [line]}),
      ...genres.map(name => make("td", {className: "share", text: percent(answer.probabilities[name]), css: {
        "background-color": `color-mix(in srgb, ${colour(name)} ${Math.round(55 * answer.probabilities[name])}%, transparent)`}})),
    ]});
  });
  $("compare").replaceChildren(make("table", {children: [
    make("caption", {text: "Songs side by side; the columns of genres hold probabilities."}),
    make("thead", {children: [make("tr", {children: heads})]}),
    make("tbody", {children: rows}),
  ]}));
  $("compare").querySelectorAll("canvas").forEach((canvas, i) => drawLine(canvas, done[i].answer));
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
$("order").addEventListener("change", () => { sortBy = null; arrange(); });
$("clear").addEventListener("click", () => [...songs].forEach(discard));

// ---- files out

const plain = song => {
  if (!song.answer) return {file: song.name, error: song.error || song.state};
  const {peaks, explanation, ...told} = song.answer;
  return told;
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
