// Songs that outlast their page, in IndexedDB: {key, file, inBrowser, prediction, error}.
const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open(`musicclass ${new URL("../", import.meta.url).pathname}`, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("songs", {keyPath: "key", autoIncrement: true});
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function run(mode, action) {
  const transaction = (await opened).transaction("songs", mode), request = action(transaction.objectStore("songs"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error); // such as a full disk
  });
}

export const loadSongs = () => run("readonly", songs => songs.getAll());
/** Returns the song's key. */
export const saveSong = song => run("readwrite", songs => songs.put(song));
export const deleteSong = key => run("readwrite", songs => songs.delete(key));
