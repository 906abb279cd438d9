// Where songs come from: chosen or dropped.
import {$} from "./dom.js";

const SUFFIXES = "wav flac mp3 ogg oga opus m4a mp4 aac aif aiff aifc wma wv au snd caf w64 ape mka mpc tta ac3 webm";
const AUDIO = new RegExp(`^[^.].*\\.(${SUFFIXES.replaceAll(" ", "|")})$`, "i");

/** Call `add(files, skipped)` with what the user gives; `skipped` counts files of a folder that aren't audio. */
export function onFiles(add) {
  const addFolder = (files, unreadable = 0) => {
    const audio = files.filter(({name}) => AUDIO.test(name));
    add(audio, files.length - audio.length + unreadable);
  };
  for (const [button, input, take] of [["choose", "files", add], ["choose-folder", "folder", addFolder]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      take([...$(input).files]);
      $(input).value = "";
    });
  }
  const highlight = on => $("drop").classList.toggle("over", on);
  addEventListener("dragover", event => { event.preventDefault(); highlight(true); });
  addEventListener("dragleave", event => highlight(event.relatedTarget !== null));
  addEventListener("drop", async event => {
    event.preventDefault();
    highlight(false);
    const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean);
    if (!entries.some(entry => entry.isDirectory)) return add([...event.dataTransfer.files]);
    const results = (await Promise.all(entries.map(readEntry))).flat();
    addFolder(results.filter(Boolean), results.filter(file => !file).length);
  });
}

/** All files of a dropped file or folder, at any depth; null for each that can't be read. */
async function readEntry(entry) {
  try {
    if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    const reader = entry.createReader(), files = [];
    for (;;) { // a reader gives a hundred entries at a time
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) return files;
      for (const each of entries) files.push(...await readEntry(each));
    }
  } catch {
    return [null];
  }
}
