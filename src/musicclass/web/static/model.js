// How good the model is, from its card.
import {$, card, colour, judged, make, percent} from "./common.js";

const NAMES = {
  test: "on test tracks", valid: "on validation tracks", train: "on training tracks, which it has heard",
  folds: "models made alike, each on tracks of artists that it hasn't heard",
};
const share = value => `${(100 * value).toFixed(1)}%`;
const span = ([low, high], tell = share) => `${tell(low)} to ${tell(high)}`;
const table = (caption, heads, rows, className = "") => make("table", {className, children: [
  make("caption", {text: caption}),
  make("thead", {children: [make("tr", {children: heads.map(text => make("th", {scope: "col", text}))})]}),
  make("tbody", {children: rows}),
]});

function showNumbers(metrics) {
  const three = value => value.toFixed(3);
  const entries = [
    ["Accuracy", share(metrics.accuracy), `${span(metrics.accuracy_95)}, of ${metrics.tracks} tracks`],
    ["Macro F1", share(metrics.macro_f1), span(metrics.macro_f1_95)],
    ["Right when surest (60% of tracks)", share(metrics.surest_60), span(metrics.surest_60_95)],
    ["Calibration error", three(metrics.calibration_error), `${three(metrics.calibration_noise)} is what chance alone makes of it`],
  ];
  $("numbers").replaceChildren(...entries.map(([name, value, more]) => make("div", {children: [
    make("dt", {text: name}),
    make("dd", {text: value, children: [make("small", {text: more})]}),
  ]})));
}

function showConfusion(genres, counts) {
  const cells = [];
  const tell = (truth, told) => {
    const count = counts[truth][told], all = counts[truth].reduce((sum, n) => sum + n, 0);
    $("told-cell").textContent = `Of ${all} ${genres[truth]} tracks, ${count} ${count === 1 ? "was" : "were"} told as ${genres[told]}`
      + (all ? ` (${percent(count / all)}).` : ".");
  };
  const rows = genres.map((truth, i) => {
    const all = Math.max(1, counts[i].reduce((sum, n) => sum + n, 0));
    return make("tr", {children: [make("th", {scope: "row", text: truth}), ...genres.map((told, j) => {
      const strength = counts[i][j] / all, cell = make("button", {type: "button", text: counts[i][j] || "·", tabIndex: cells.length ? -1 : 0});
      cell.setAttribute("aria-label", `${truth} told as ${told}: ${counts[i][j]}`);
      cell.style.setProperty("background-color", `color-mix(in srgb, ${i === j ? "var(--right)" : "var(--wrong)"} ${Math.round(85 * strength)}%, var(--track))`);
      for (const event of ["focus", "mouseenter", "click"]) cell.addEventListener(event, () => tell(i, j));
      cells.push(cell);
      return make("td", {children: [cell]});
    })]});
  });
  const drawn = table("Rows: the true genre; columns: what it was told as. Click a cell for its words.", [], rows, "confusion");
  drawn.tHead.rows[0].append(make("td"), ...genres.map(genre =>
    make("th", {scope: "col", children: [make("span", {text: genre})]})));
  drawn.addEventListener("keydown", event => {
    const n = genres.length, at = cells.indexOf(document.activeElement);
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: n, ArrowUp: -n}[event.key];
    if (at < 0 || !step || !cells[at + step]) return;
    event.preventDefault();
    cells[at].tabIndex = -1;
    cells[at + step].tabIndex = 0;
    cells[at + step].focus();
  });
  $("confusion").replaceChildren(drawn);
  const wrong = genres.flatMap((_, i) => genres.map((_, j) => [i, j])).filter(([i, j]) => i !== j);
  tell(...wrong.reduce((most, pair) => counts[pair[0]][pair[1]] > counts[most[0]][most[1]] ? pair : most)); // something to read first
}

function showReliability(bins) {
  const SIZE = 330, LEFT = 46, BOTTOM = 40, svg = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const x = value => LEFT + value * (SIZE - LEFT - 22), y = value => 12 + (1 - value) * (SIZE - BOTTOM - 12);
  const words = ([sure, right, tracks]) => `${percent(sure)} sure: ${percent(right)} of ${tracks} right`;
  const picture = svg("svg", {viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label":
    `Reliability diagram: ${bins.map(words).join("; ")}. The dashed line is where both are the same.`});
  for (const at of [0, .2, .4, .6, .8, 1]) {
    picture.append(
      svg("line", {class: "axis", x1: x(0), x2: x(1), y1: y(at), y2: y(at)}),
      svg("text", {x: x(0) - 6, y: y(at) + 4, "text-anchor": "end"}, percent(at)),
      svg("text", {x: x(at), y: y(0) + 16, "text-anchor": "middle"}, percent(at)),
    );
  }
  picture.append(
    svg("line", {class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1)}),
    svg("polyline", {class: "curve", points: bins.map(([sure, right]) => `${x(sure)},${y(right)}`).join(" ")}),
    svg("text", {x: (x(0) + x(1)) / 2, y: SIZE - 6, "text-anchor": "middle"}, "how sure it is"),
    svg("text", {transform: `translate(11 ${(y(0) + y(1)) / 2}) rotate(-90)`, "text-anchor": "middle"}, "how often it is right"),
  );
  const rows = bins.map(([sure, right, tracks]) => make("tr", {children: [
    make("td", {text: percent(sure)}), make("td", {text: percent(right)}), make("td", {text: tracks})]}));
  bins.forEach((bin, i) => {
    const dot = svg("circle", {cx: x(bin[0]), cy: y(bin[1]), r: 6});
    dot.append(svg("title", {}, words(bin)));
    const mark = on => () => { dot.classList.toggle("marked", on); rows[i].classList.toggle("marked", on); };
    for (const [node, [enter, leave]] of [[dot, ["mouseenter", "mouseleave"]], [rows[i], ["mouseenter", "mouseleave"]]]) {
      node.addEventListener(enter, mark(true));
      node.addEventListener(leave, mark(false));
    }
    picture.append(dot);
  });
  $("reliability").replaceChildren(picture);
  $("bins").replaceChildren(table("The same in numbers", ["sure", "right", "tracks"], rows));
}

function showGenres(scores) {
  const cell = (found, name) => make("td", {children: [
    make("span", {text: percent(found[name])}), " ",
    make("small", {className: "quiet", text: span(found[`${name}_95`], percent)}),
  ]});
  $("genres").replaceChildren(table("With 95% intervals. Found: of its tracks; rightly: of those told as it.",
    ["genre", "tracks", "found (recall)", "rightly (precision)", "F1"],
    Object.entries(scores).map(([genre, found]) => make("tr", {children: [
      make("th", {scope: "row", children: [make("span", {className: "dot", text: genre, css: {"--genre": colour(genre)}})]}),
      make("td", {text: found.tracks}), ...["recall", "precision", "f1"].map(name => cell(found, name)),
    ]})), "full"));
}

function showMade(found) {
  const {features, model} = found.config, {counts, name} = found.data;
  const heard = Object.entries(counts).filter(([, n]) => n).map(([side, n]) => `${n} ${side}`).join(", ");
  const facts = {
    Genres: found.genres.join(", "),
    "Data set": `${name} (${heard}), split: ${found.data.split_name}`,
    Hears: `${features.n_mfcc} MFCCs of ${features.window_seconds} s windows, ${features.sample_rate} Hz, hop length ${features.hop_length}`,
    Network: `${model.network}, ${found.parameters.toLocaleString("en")} parameters${model.members > 1 ? `, ${model.members} times ${model.network.split("+")[0]}` : ""}`,
    "SHA-256": found.sha256,
  };
  $("made").replaceChildren(...Object.entries(facts).flatMap(([key, text]) => [make("dt", {text: key}), make("dd", {text})]));
  const rule = found.min_confidence === null ? "Where the music is unfamiliar: speech, noise and hum, and much music of other genres, are"
    : `Below a confidence of ${found.min_confidence.toFixed(2)}, which is low where the music is unfamiliar: speech, noise and hum are`;
  $("unknown").textContent = `${rule} unlike the music that the model learnt from, or get answers unlike those to it. It learnt only the `
    + "genres named here; music of other genres can be told as one of them. One in twenty tracks of these genres is unfamiliar, too.";
}

async function main() {
  const found = await card();
  $("title").textContent = `The model: ${found.name}`;
  $("about").textContent = found.about ? `${found.about.replace(/\.?$/, ".")}` : "";
  const parts = judged(found);
  $("part").replaceChildren(...parts.map(value => make("option", {value, text: NAMES[value]})));
  const show = () => {
    const metrics = found.metrics[$("part").value];
    showNumbers(metrics);
    showConfusion(found.genres, metrics.confusion);
    showReliability(metrics.reliability);
    showGenres(metrics.genres);
  };
  $("part").addEventListener("change", show);
  if (parts.length) show();
  else $("numbers").textContent = "Its card holds no results.";
  showMade(found);
}
main().catch(error => { $("about").textContent = error.message; });
