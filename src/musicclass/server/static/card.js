// A song's card: what it says of a prediction, of the example, and why.
import {explainOnServer, fetchJson, similarSongs} from "./api.js";
import {explainInBrowser} from "./browser.js";
import {$, clock, createElement, drawOn, keepDrawn, percent, probabilityText, themeColors} from "./dom.js";
import {evidenceAgainst, showExplanation} from "./explanation.js";
import {playSpans} from "./player.js";
import {confidenceText, drawTimeline, drawWaveform, genreLabel, headline, probabilityBars} from "./prediction.js";

/** What a card says of a prediction; also of the example, which has no file. */
export function fillResult(card, prediction) {
  const find = selector => card.querySelector(selector), {tags, duration, limit, file, seconds_lost} = prediction;
  find(".headline").replaceChildren(...headline(prediction));
  find(".confidence").textContent = confidenceText(prediction);
  find(".answer").replaceChildren(genreLabel(prediction.genre), prediction.genre === "unknown"
    ? ` near ${prediction.top_genre}` : ` ${probabilityText(prediction.confidence)}`);
  find(".tags").hidden = !Object.keys(tags).length;
  find(".tags").replaceChildren(...Object.keys(tags).map(tag => createElement("li", {}, tag)));
  find(".limited").textContent = [
    duration >= limit ? `Only the first ${clock(limit)} were analysed.` : "",
    seconds_lost >= .5 ? `${clock(seconds_lost)} of it is damaged and was skipped.` : "",
  ].join(" ");
  find(".probabilities").replaceChildren(...probabilityBars(prediction.probabilities));
  find("summary").ariaLabel = `All genres of ${file}`;
  const genres = [...new Set(prediction.segments.map(({genre}) => genre))];
  find(".parts").replaceChildren(...genres.map(genre => genreLabel(genre, undefined, "li")));
  const wide = find(".timeline-of-card canvas"), mini = find(".mini canvas"), peaks = prediction.waveform_peaks.length;
  wide.ariaLabel = `Genres along ${file}: ${genres.map(genre => genre ?? "silence").join(", ")}`;
  keepDrawn(wide, () => drawOn(wide, (context, width, height) => {
    const split = peaks ? .7 * height : 0;
    if (peaks) drawWaveform(context, prediction, 0, 0, width, split - 4, themeColors());
    drawTimeline(context, prediction, 0, split, width, height - split, themeColors());
  }));
  keepDrawn(mini, () => drawOn(mini, (context, ...size) => drawTimeline(context, prediction, 0, 0, ...size)));
}

/** Show a recorded prediction of the default model on the empty page. */
export async function showExample(model) {
  const example = await fetchJson("static/example.json");
  if (example.model !== model) return;
  const card = $("card").content.cloneNode(true).firstElementChild;
  card.querySelectorAll("button, .actions, .progress, .explanation").forEach(part => part.remove());
  fillResult(card, example);
  card.querySelector("h2").textContent = `An example: ${example.file}`;
  card.querySelector(".result").hidden = false;
  $("example").replaceChildren(card);
}

/** Open a card, or fold it to a row of the list. */
export function showOpen({card, prediction, open, name}, byDefault) {
  const shown = Boolean(prediction) && (open ?? byDefault), find = selector => card.querySelector(selector);
  find(".result").hidden = !shown;
  const textContent = shown ? "Less" : "Details", ariaLabel = `${textContent} of ${name}`;
  Object.assign(find(".open"), {ariaExpanded: String(shown), textContent, ariaLabel});
  for (const selector of [".answer", ".mini"]) find(selector).hidden = shown || !prediction;
  card.classList.toggle("row", !shown && !card.querySelector(".failure:not([hidden])"));
}

const explainGenre = (song, genre, onProgress = () => {}) => {
  const explain = song.inBrowser || $("in-browser").checked ? explainInBrowser : explainOnServer;
  return explain(song.file, genre, onProgress);
};

/** The explanation of a song's top genre, computed once. */
export const explainSong = async (song, onProgress) =>
  song.explanation ??= await explainGenre(song, song.prediction.top_genre, onProgress);

export async function toggleExplanation(song) {
  const {card, prediction} = song, section = card.querySelector(".explanation");
  section.hidden = !section.hidden;
  card.querySelector(".explain").ariaExpanded = String(!section.hidden);
  if (section.hidden || section.querySelector("canvas, [role=status]")) return;
  const status = createElement("p", {role: "status"}), done = createElement("span", {className: "muted"});
  section.replaceChildren(status, done);
  status.textContent = "Occluding one part after the other …";
  try {
    const explanation = await explainSong(song, share => { done.textContent = percent(share); });
    showExplanation(section, prediction, explanation, spans => playSpans(song, spans), whyNot(song, section));
  } catch (error) {
    section.replaceChildren(createElement("p", {className: "problem", role: "alert"}, error.message));
  }
}

/** The songs of the served library that sound most like a song; its file is sent to the server. */
export async function toggleSimilar({card, file}) {
  const section = card.querySelector(".similar-songs");
  section.hidden = !section.hidden;
  card.querySelector(".similar").ariaExpanded = String(!section.hidden);
  if (section.hidden || section.querySelector("ol")) return;
  section.replaceChildren(createElement("p", {className: "muted", role: "status"}, "Comparing …"));
  const songs = await similarSongs(file).catch(({message}) => [{name: message}]);
  section.replaceChildren(createElement("ol", {}, ...songs.map(({name, genre, similarity}) => createElement("li", {},
    name, ...similarity === undefined ? [] : [" ", genreLabel(genre), ` ${percent(similarity)} similar`]))));
}

/** A choice of another genre, and what speaks against it. */
function whyNot(song, section) {
  const others = Object.keys(song.prediction.probabilities).filter(genre => genre !== song.prediction.top_genre);
  const ariaLabel = `Why not another genre? ${song.name}`;
  const select = createElement("select", {ariaLabel, onchange: async () => {
    const against = section.querySelector(".against");
    against.textContent = "Occluding one part after the other …";
    against.textContent = await explainGenre(song, select.value).then(evidenceAgainst, ({message}) => message);
  }}, createElement("option", {value: "", disabled: true, selected: true}, "another genre"),
  ...others.map(genre => createElement("option", {}, genre)));
  return createElement("label", {className: "muted"}, "Why not ", select);
}
