// Helpers of all pages and of the library's report.
export const $ = id => document.getElementById(id);

export const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)}%`;
/** A probability as text; never 100%, since no prediction is certain. */
export const probabilityText = value => value >= .995 ? ">99%" : percent(value);
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Seconds as 1:05 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.floor(seconds + 1e-6), parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) parts.unshift(Math.floor(whole / 3600));
  return parts.map((part, i) => i ? String(part).padStart(2, "0") : part).join(":");
}

/** Let the browser save a blob as a file. */
export function saveFile(blob, name) {
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
