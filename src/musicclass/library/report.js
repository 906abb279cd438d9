// The page of report.html; comes after dom.js in one script.
const data = JSON.parse($("data").textContent);
const FILTERS = {all: () => true, unknown: row => row[1] === "unknown", failed: row => row[4] !== "ok"};
const PAGE = 200; // rows on the screen
const TEXT = 7; // index of a row's lower-case text
const headers = [...document.querySelectorAll("#files thead th")];
let page = 0, column = 2, ascending = true, filter = "all", waiting;

function compare(a, b) {
  const [x, y] = [a[column], b[column]];
  if (x == null || y == null) return (x == null) - (y == null);
  return (x < y ? -1 : x > y ? 1 : 0) * (ascending ? 1 : -1);
}

function sortBy(i) {
  ascending = column !== i || !ascending;
  column = i;
  data.rows.sort(compare);
  showFiles(0);
}

function fileRow([file, genre, confidence, duration, status, error, tags]) {
  const row = $("row").content.cloneNode(true), texts = {
    "th span": file, ".problem": error, ".genre": genre, ".status": genre === null ? status : "", "small": tags,
    ".confidence": confidence === null ? "" : probabilityText(confidence),
    ".duration": duration === null ? "" : clock(duration),
  };
  for (const [selector, text] of Object.entries(texts)) row.querySelector(selector).textContent = text ?? "";
  row.querySelector(".genre").style.setProperty("--genre", data.colors[genre]);
  return row;
}

/** Row by row, when it is first searched: of a million files, not all at once. */
const textOf = row => row[TEXT] ??= row.join(" ").toLowerCase();

function showFiles(shownPage) {
  const words = $("search").value.toLowerCase().split(/\s+/);
  const rows = data.rows.filter(row => FILTERS[filter](row) && words.every(word => textOf(row).includes(word)));
  page = Math.max(0, Math.min(shownPage, Math.ceil(rows.length / PAGE) - 1));
  const first = page * PAGE, shown = rows.slice(first, first + PAGE);
  $("rows").replaceChildren(...shown.map(fileRow));
  headers.forEach((header, i) => {
    header.ariaSort = i !== column ? "none" : ascending ? "ascending" : "descending";
  });
  for (const button of $("filters").children) button.ariaPressed = String(button.value === filter);
  const range = `${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")} of `;
  $("shown").textContent = (rows.length > PAGE ? range : "") + count(rows.length, "file");
  $("previous").disabled = !page;
  $("next").disabled = first + PAGE >= rows.length;
  $("pages").hidden = rows.length <= PAGE;
}

function turn(pages) {
  showFiles(page + pages);
  $("files").scrollIntoView({block: "start"});
}

headers.forEach((header, i) => { header.firstElementChild.onclick = () => sortBy(i); });
for (const button of $("filters").children) button.onclick = () => { filter = button.value; showFiles(0); };
$("search").oninput = () => {
  clearTimeout(waiting);
  waiting = setTimeout(showFiles, data.rows.length > 20_000 ? 200 : 0, 0);
};
$("previous").onclick = () => turn(-1);
$("next").onclick = () => turn(1);
data.rows.sort(compare);
showFiles(0);
