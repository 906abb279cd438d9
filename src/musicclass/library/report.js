// The page of report.html; comes after dom.js in one script.
const data = JSON.parse($("data").textContent);
const HEADERS = ["File", "Genre", "Confidence", "Duration"]; // the first columns of a row; then status, error, tags
const FILTERS = {all: () => true, unknown: row => row[1] === "unknown", failed: row => row[4] !== "ok"};
const PAGE = 200; // rows on the screen
const TEXT = 7; // index of a row's lower-case text
let page = 0, column = 2, ascending = true, filter = "all", waiting;

function compare(a, b) {
  const [x, y] = [a[column], b[column]];
  if (x == null || y == null) return (x == null) - (y == null);
  return (x < y ? -1 : x > y ? 1 : 0) * (ascending ? 1 : -1);
}

function header(name, i) {
  const order = i !== column ? "none" : ascending ? "ascending" : "descending";
  const sort = () => {
    ascending = column !== i || !ascending;
    column = i;
    page = 0;
    data.rows.sort(compare);
    drawFiles();
  };
  const arrow = {none: "", ascending: " ▲", descending: " ▼"}[order];
  return createElement("th", {scope: "col", ariaSort: order},
    createElement("button", {type: "button", onclick: sort}, name + arrow));
}

function fileRow([file, genre, confidence, duration, status, error, tags]) {
  return createElement("tr", {},
    createElement("th", {scope: "row"}, file, ...error ? [createElement("p", {className: "problem"}, error)] : []),
    createElement("td", {}, genre === null ? status
      : createElement("span", {className: "genre", css: {"--genre": data.colors[genre]}}, genre), " ",
    createElement("small", {className: "muted"}, tags ?? "")),
    createElement("td", {}, confidence === null ? "" : probabilityText(confidence)),
    createElement("td", {}, duration === null ? "" : clock(duration)));
}

/** Row by row, when it is first searched: of a million files, not all at once. */
const textOf = row => row[TEXT] ??= row.join(" ").toLowerCase();

function drawFiles() {
  const words = $("search").value.toLowerCase().split(/\s+/);
  const rows = data.rows.filter(row => FILTERS[filter](row) && words.every(word => textOf(row).includes(word)));
  page = Math.max(0, Math.min(page, Math.ceil(rows.length / PAGE) - 1));
  const first = page * PAGE, shown = rows.slice(first, first + PAGE);
  $("files").replaceChildren(createElement("table", {className: "full"},
    createElement("thead", {}, createElement("tr", {}, ...HEADERS.map(header))),
    createElement("tbody", {}, ...shown.map(fileRow))));
  for (const button of $("filters").children) button.ariaPressed = String(button.textContent === filter);
  const range = `${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")} of `;
  $("shown").textContent = (rows.length > PAGE ? range : "") + count(rows.length, "file");
  $("previous").disabled = !page;
  $("next").disabled = first + PAGE >= rows.length;
  $("pages").hidden = rows.length <= PAGE;
}

function turn(pages) {
  page += pages;
  drawFiles();
  $("files").scrollIntoView({block: "start"});
}

$("filters").append(...Object.keys(FILTERS).map(name =>
  createElement("button", {type: "button", onclick: () => { filter = name; page = 0; drawFiles(); }}, name)));
$("search").oninput = () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { page = 0; drawFiles(); }, data.rows.length > 20_000 ? 200 : 0);
};
$("previous").onclick = () => turn(-1);
$("next").onclick = () => turn(1);
data.rows.sort(compare);
drawFiles();
