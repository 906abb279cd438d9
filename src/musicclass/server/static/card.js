// What a song's card computes on request: why it has its genre, why not another one, and similar songs.
import {explainOnServer, similarSongs} from "./api.js";
import {explainInBrowser} from "./browser.js";
import {$, percent} from "./dom.js";
import {evidenceAgainst, explanationText} from "./explanation.js";

const WAITING = "Occluding one part after the other …";

const explainGenre = (song, genre, onProgress = () => {}) => {
  const explain = song.inBrowser || $("in-browser").checked ? explainInBrowser : explainOnServer;
  return explain(song.file, genre, onProgress);
};

/** The explanation of a song's top genre, computed once. */
export const explainSong = async (song, onProgress) =>
  song.explanation ??= Object.freeze(await explainGenre(song, song.prediction.top_genre, onProgress));

export async function toggleExplanation(song) {
  song.explained = !song.explained;
  if (!song.explained || song.why || song.explaining) return;
  Object.assign(song, {explaining: WAITING, progress: "", problem: ""});
  try {
    const explanation = await explainSong(song, share => { song.progress = percent(share); });
    song.why = explanationText(explanation);
  } catch ({message}) {
    song.problem = message;
  }
  song.explaining = "";
}

/** What speaks against a genre; only the last question is answered. */
export async function askWhyNot(song, genre) {
  Object.assign(song, {whyNot: genre, against: WAITING});
  const against = await explainGenre(song, genre).then(evidenceAgainst, ({message}) => message);
  if (song.whyNot === genre) song.against = against;
}

/** The songs of the served library that sound most like a song; its file is sent to the server. */
export async function toggleSimilar(song) {
  song.compared = !song.compared;
  if (song.compared) song.similar ??= await similarSongs(song.file).catch(({message}) => [{name: message}]);
}
