// A file's tags, by jsmediatags (ID3, MP4, FLAC).
import {createElement} from "./dom.js";

const library = new Promise(resolve => document.head.append(createElement("script", {
  src: new URL("jsmediatags/jsmediatags.min.js", import.meta.url).href,
  onload: () => resolve(window.jsmediatags), onerror: () => resolve(null),
})));

/** {title, artist, cover}, what there is of them; `cover` is the URL of an image. */
export async function readTags(file) {
  const reader = await library;
  if (!reader) return {};
  const tags = await new Promise(resolve => {
    try {
      reader.read(file, {onSuccess: found => resolve(found.tags), onError: () => resolve({})});
    } catch {
      resolve({});
    }
  });
  const {data, format} = tags.picture ?? {}, text = value => typeof value === "string" && value.trim() || undefined;
  const cover = data && URL.createObjectURL(new Blob([Uint8Array.from(data)], {type: format}));
  return {title: text(tags.title), artist: text(tags.artist), cover};
}
