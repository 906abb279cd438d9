// Songs that outlast their page, in IndexedDB: {key, number, file, inBrowser, prediction, error, label}.
import {openDB} from "./lib/idb/index.js";

const opened = openDB(`musicclass ${new URL("../", import.meta.url).pathname}`, 1, {
  upgrade: database => database.createObjectStore("songs", {keyPath: "key", autoIncrement: true}),
});

export const loadSongs = async () => (await opened).getAll("songs");
/** Returns the song's key. */
export const saveSong = async song => (await opened).put("songs", song);
export const deleteSong = async key => (await opened).delete("songs", key);
