// Where songs come from: chosen, dropped, recorded.
import {$, clock} from "./common.js";

const SOUNDS = /\.(wav|flac|mp3|ogg|oga|opus|m4a|mp4|aac|aiff?|aifc|wma|wv|au|snd|caf|w64|ape|mka|mpc|tta|ac3|webm)$/i;
let inside = 0, recorder = null;

/** Call `add(files, leftOut)` for whatever comes; `leftOut` counts files of a folder that are no songs. */
export function takeFiles(add) {
  const addFolder = (files, lost = 0) => {
    const shown = files.filter(file => SOUNDS.test(file.name) && !file.name.startsWith("."));
    add(shown, files.length - shown.length + lost);
  };
  for (const [button, input, take] of [["choose", "files", add], ["choose-folder", "folder", addFolder]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      take([...$(input).files]);
      $(input).value = "";
    });
  }
  addEventListener("dragenter", () => { inside += 1; $("drop").classList.add("over"); });
  addEventListener("dragleave", () => { inside -= 1; if (!inside) $("drop").classList.remove("over"); });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", async event => {
    event.preventDefault();
    inside = 0;
    $("drop").classList.remove("over");
    const items = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!items.some(item => item.isDirectory)) return add([...event.dataTransfer.files]);
    const found = {files: [], lost: 0};
    for (const item of items) await collect(item, found);
    addFolder(found.files, found.lost);
  });
  $("record").addEventListener("click", () => record(file => add([file])));
}

/** All files of a folder, at any depth; those that can't be had are counted as lost. */
async function collect(entry, found) {
  try {
    if (entry.isFile) {
      found.files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a reader gives a hundred at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const each of some) await collect(each, found);
    }
  } catch {
    found.lost += 1;
  }
}

async function record(done) {
  if (recorder) return recorder.stop();
  const button = $("record");
  let stream;
  button.disabled = true; // while the browser asks for leave
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it over https, or on the server's own machine as localhost");
    stream = await navigator.mediaDevices.getUserMedia({
      audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false},
    });
  } catch (error) {
    $("count").textContent = `The microphone can't be used (${error.message}); allow it for this page, or choose a file.`;
    return;
  } finally {
    button.disabled = false;
  }
  const parts = [], begun = Date.now();
  recorder = new MediaRecorder(stream);
  const ticking = setInterval(() => { button.textContent = `Stop (${clock((Date.now() - begun) / 1000)})`; }, 250);
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.onstop = () => {
    clearInterval(ticking);
    stream.getTracks().forEach(track => track.stop());
    const at = new Date(begun).toTimeString().slice(0, 8).replaceAll(":", "."), kind = recorder.mimeType;
    recorder = null;
    button.textContent = "Record";
    button.setAttribute("aria-pressed", "false");
    done(new File(parts, `Recording ${at}.${kind.includes("mp4") ? "m4a" : "webm"}`, {type: kind}));
  };
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop (0:00)";
  recorder.start();
}
