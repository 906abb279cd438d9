// Where songs come from: chosen or dropped.
import Alpine from "./ui.js";

const SUFFIXES = "wav flac mp3 ogg oga opus m4a mp4 aac aif aiff aifc wma wv au snd caf w64 ape mka mpc tta ac3 webm";
const AUDIO = new RegExp(`^[^.].*\\.(${SUFFIXES.replaceAll(" ", "|")})$`, "i");

/**
 * What songs.html needs to call `add(files, skipped)` with what the user gives; `skipped` counts files of a folder that
 * aren't audio or can't be read.
 */
export function onFiles(add) {
  const drag = Alpine.reactive({isOver: false});
  const take = (files, areOfFolder) => {
    const audio = areOfFolder ? files.filter(file => file && AUDIO.test(file.name)) : files;
    add(audio, files.length - audio.length);
  };
  const takeChosen = input => {
    take([...input.files], input.webkitdirectory);
    input.value = "";
  };
  const takeDropped = async ({items, files}) => {
    drag.isOver = false;
    const entries = [...items].map(item => item.webkitGetAsEntry()).filter(Boolean);
    if (!entries.some(entry => entry.isDirectory)) return take([...files], false);
    take((await Promise.all(entries.map(readEntry))).flat(), true);
  };
  return {drag, takeChosen, takeDropped};
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
