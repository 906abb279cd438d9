// A file's tags, by jsmediatags (ID3, MP4, FLAC), which isn't a module.
const loaded = new Promise(resolve => document.head.append(Object.assign(document.createElement("script"), {
  src: new URL("lib/jsmediatags/jsmediatags.min.js", import.meta.url).href, onload: resolve, onerror: resolve,
})));

/** {title, artist, cover}, what there is of them; `cover` is the URL of an image. */
export async function readTags(file) {
  await loaded;
  const tags = await new Promise((resolve, reject) => {
    window.jsmediatags.read(file, {onSuccess: found => resolve(found.tags), onError: reject});
  }).catch(() => ({}));
  const {data, format} = tags.picture ?? {}, text = value => typeof value === "string" && value.trim() || undefined;
  const cover = data && URL.createObjectURL(new Blob([Uint8Array.from(data)], {type: format}));
  return {title: text(tags.title), artist: text(tags.artist), cover};
}
