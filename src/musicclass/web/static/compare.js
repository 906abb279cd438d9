// Songs side by side, in a table that its heads sort.
import {$, colour, drawLine, make, percent} from "./common.js";

let sortBy = null, sortDown = false;

/** Forget the table's own order. */
export function forgetOrder() { sortBy = null; }

/** Show songs that have answers, in their order, or in that of the head that was pressed last. */
export function compare(songs) {
  const genres = songs.length ? Object.keys(songs[0].answer.probabilities).sort() : [];
  const columns = [
    {name: "Song", value: song => song.name.toLowerCase(), className: "song"},
    {name: "Genre", value: song => song.answer.genre},
    {name: "Sure", value: song => song.answer.confidence, className: "number"},
    ...genres.map(name => ({name, value: song => song.answer.probabilities[name], className: "number"})),
  ];
  const key = columns.find(column => column.name === sortBy), done = [...songs];
  if (key) done.sort((a, b) => (key.value(a) < key.value(b) ? -1 : 1) * (sortDown ? -1 : 1));
  const focused = $("compare").contains(document.activeElement) ? document.activeElement.dataset.column : null;
  const heads = columns.map(({name, className = ""}) => {
    const button = make("button", {type: "button", text: name + (name === sortBy ? (sortDown ? " ▼" : " ▲") : "")});
    button.dataset.column = name;
    button.addEventListener("click", () => {
      sortDown = sortBy === name ? !sortDown : !["Song", "Genre"].includes(name);
      sortBy = name;
      compare(songs);
    });
    const head = make("th", {scope: "col", className, children: [button]});
    if (name === sortBy) head.setAttribute("aria-sort", sortDown ? "descending" : "ascending");
    return head;
  });
  heads.splice(3, 0, make("th", {scope: "col", text: "Along it"}));
  $("compare").replaceChildren(make("table", {children: [
    make("caption", {text: "Songs side by side; the columns of genres hold probabilities."}),
    make("thead", {children: [make("tr", {children: heads})]}),
    make("tbody", {children: done.map(song => row(song, genres))}),
  ]}));
  $("compare").querySelectorAll("canvas").forEach((canvas, i) => drawLine(canvas, done[i].answer));
  if (focused) $("compare").querySelector(`[data-column="${CSS.escape(focused)}"]`)?.focus();
}

function row({name, answer}, genres) {
  const line = make("canvas", {className: "line", role: "img"});
  line.setAttribute("aria-label", [...new Set(answer.segments.map(part => part.genre ?? "silence"))].join(", "));
  return make("tr", {children: [
    make("th", {scope: "row", className: "song", text: name}),
    make("td", {children: [make("span", {className: "dot", text: answer.genre, css: {"--genre": colour(answer.genre)}})]}),
    make("td", {className: "number", text: percent(answer.confidence)}),
    make("td", {children: [line]}),
    // At 40% of any genre's colour, the numbers can still be read, in the dark too.
    ...genres.map(genre => make("td", {className: "share", text: percent(answer.probabilities[genre]), css: {
      "background-color": `color-mix(in srgb, ${colour(genre)} ${Math.round(40 * answer.probabilities[genre])}%, transparent)`}})),
  ]});
}
