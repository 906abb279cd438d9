// Where songs come from: chosen, dropped, recorded.
import {$, clock} from "./dom.js";

const SUFFIXES = "wav flac mp3 ogg oga opus m4a mp4 aac aif aiff aifc wma wv au snd caf w64 ape mka mpc tta ac3 webm";
const AUDIO = new RegExp(`^[^.].*\\.(${SUFFIXES.replaceAll(" ", "|")})$`, "i");
let recorder = null;

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
  $("record").addEventListener("click", () => record(file => add([file])));
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

async function record(add) {
  if (recorder) return recorder.stop();
  const button = $("record"), chunks = [];
  let stream;
  button.disabled = true; // while the browser asks for permission
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it over https or on localhost only");
    stream = await navigator.mediaDevices.getUserMedia({
      audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false},
    });
  } catch (error) {
    $("status").textContent = `Can't use the microphone (${error.message}); allow it for this page, or choose a file.`;
    return;
  } finally {
    button.disabled = false;
  }
  const start = new Date(), show = () => { button.textContent = `Stop (${clock((Date.now() - start) / 1000)})`; };
  const timer = setInterval(show, 250);
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = ({data}) => chunks.push(data);
  recorder.onstop = () => {
    clearInterval(timer);
    stream.getTracks().forEach(track => track.stop());
    const type = recorder.mimeType, time = start.toTimeString().slice(0, 8).replaceAll(":", ".");
    recorder = null;
    Object.assign(button, {textContent: "Record", ariaPressed: "false"});
    add(new File(chunks, `Recording ${time}.${type.includes("mp4") ? "m4a" : "webm"}`, {type}));
  };
  button.ariaPressed = "true";
  show();
  recorder.start();
}
