// Writing genres into the files of the listed songs, after a dry run, and its undo.
import {fetchJson} from "./api.js";
import {$, count, createElement} from "./dom.js";

const SHOWN = 200, ORDER = ["changed", "failed", "skipped"]; // files; their outcomes
let selection = () => ({}), proposed = {}, waiting = Promise.resolve();

/** Show the button where the server writes tags; `getSelection` returns the listed rows and the table's revision. */
export function offerTags({write_tags}, getSelection) {
  selection = getSelection;
  $("write-tags").hidden = !write_tags;
}

function listItem({path, outcome, before, after, reason}) {
  const change = after.length ? `${before.join(", ") || "none"} → ${after.join(", ")}` : reason || "restored";
  return createElement("li", {}, createElement("div", {className: "track-name"}, createElement("b", {}, path),
    createElement("small", {className: outcome === "failed" ? "problem" : "muted"}, change)));
}

/** Send a request, and show its files; `verb`: what happens to them. */
async function run(verb, body, path = "v1/library/tags") {
  $("tags-write").hidden = $("tags-undo").hidden = true;
  $("tags-status").textContent = body.dry_run ? "Reading the tags in the files …" : "Working …";
  $("tags-files").replaceChildren();
  const options = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  try {
    const {counts, files} = await fetchJson(path, options), more = files.length - SHOWN;
    const others = ["skipped", "failed"].filter(name => counts[name]);
    $("tags-status").textContent = `${[`${count(counts.changed, "file")} ${verb}`,
      ...others.map(name => `${counts[name].toLocaleString("en")} ${name}`)].join(", ")}.`;
    files.sort((a, b) => ORDER.indexOf(a.outcome) - ORDER.indexOf(b.outcome));
    $("tags-files").append(...files.slice(0, SHOWN).map(listItem),
      ...more > 0 ? [createElement("li", {}, `… and ${count(more, "more file", "more files")}`)] : []);
    $("tags-write").textContent = `Write ${count(counts.changed, "file")}`;
    $("tags-write").hidden = !(body.dry_run && counts.changed);
  } catch (error) {
    $("tags-status").textContent = error.message;
  }
  $("tags-undo").hidden = !await fetchJson("v1/library").then(({tags_written}) => tags_written, () => false);
  if (!$("tags").contains(document.activeElement)) $("tags-close").focus();
}
const next = (...request) => { waiting = waiting.then(() => run(...request)); };
const propose = () => next("would be changed",
  {...(proposed = {...selection(), mode: $("tags-mode").value}), dry_run: true});
$("tags-mode").addEventListener("change", propose);
for (const [id, onclick] of Object.entries({
  "write-tags": () => { $("tags").showModal(); propose(); }, "tags-close": () => $("tags").close(),
  "tags-write": () => next("changed", {...proposed, dry_run: false}),
  "tags-undo": () => next("restored", {}, "v1/library/tags/undo"),
})) $(id).addEventListener("click", onclick);
