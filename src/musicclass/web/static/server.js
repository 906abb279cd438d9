// Asking the server: send a file, follow its job.
const PEAKS = 1500;

/** The answer for a file; `tell(words, share)` hears how far it is. Throws an Error with the reason, in words. */
export async function askServer(file, name, tell, signal) {
  for (;;) {
    const {status, told, retry} = await send(file, name, tell, signal);
    if (status === 202) return follow(told.jobs[0], tell, signal);
    if (status !== 503) throw new Error(told.detail || `the server answered ${status}`);
    tell("Waiting for the server", 0);
    await new Promise(resolve => setTimeout(resolve, 1000 * retry));
    if (signal.aborted) throw new Error("cancelled");
  }
}

/** What `askServer` answers, and why. */
export async function explainOnServer(file, name) {
  const query = new URLSearchParams({name, explain: true});
  const answer = await fetch(`/v1/predict?${query}`, {
    method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"},
  }).catch(() => { throw new Error("the server can't be reached; is it still running?"); });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail);
  return told.explanation;
}

function send(file, name, tell, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(), query = new URLSearchParams({name, wait: false, peaks: PEAKS});
    request.open("POST", `/v1/predict?${query}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = event => tell("Sending", .3 * event.loaded / Math.max(1, event.total));
    request.onload = () => {
      let told = {};
      try { told = JSON.parse(request.responseText); } catch { /* no reason is given */ }
      resolve({status: request.status, told, retry: Number(request.getResponseHeader("Retry-After")) || 1});
    };
    request.onerror = () => reject(new Error("the server can't be reached; is it still running?"));
    request.onabort = () => reject(new Error("cancelled"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function follow(job, tell, signal) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(job.href);
    const leave = () => {
      fetch(job.href, {method: "DELETE"}).catch(() => {});
      end(reject, new Error("cancelled"));
    };
    const end = (settle, value) => {
      events.close();
      signal.removeEventListener("abort", leave);
      settle(value);
    };
    events.addEventListener("waiting", () => tell("Waiting for its turn", .3));
    events.addEventListener("hearing", event => tell("Listening", .3 + .7 * JSON.parse(event.data).share));
    events.addEventListener("done", event => {
      const told = JSON.parse(event.data);
      fetch(job.href, {method: "DELETE"}).catch(() => {});
      if (told.answer) end(resolve, told.answer);
      else end(reject, new Error(told.problem.detail));
    });
    events.onerror = () => end(reject, new Error("the server was lost while it listened; is it still running?"));
    signal.addEventListener("abort", leave);
  });
}
