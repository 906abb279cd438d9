// What an answer rests on: the log-mel picture, with the cells that matter.
import {clock, make, surface} from "./common.js";

/** Fill a card's .because; `play` plays stretches of the song. */
export function showWhy(target, answer, why, play) {
  const canvas = make("canvas", {role: "img"});
  canvas.setAttribute("aria-label", `Spectrogram of ${answer.file}; marked: ${why.words}`);
  const edges = why.frequencies, told = edges.filter((_, i) => i % 2 === 0 || i === edges.length - 1);
  const button = make("button", {type: "button", text: `Play what mattered most (${why.seconds.map(s => clock(s[0])).join(", ")})`});
  button.addEventListener("click", () => play(why.seconds));
  target.replaceChildren(
    make("p", {text: `${why.words[0].toUpperCase()}${why.words.slice(1)}.`}),
    make("div", {className: "mel", children: [
      make("div", {className: "hertz", "aria-hidden": "true", children: told.map(f =>
        make("span", {text: f >= 1000 ? `${(f / 1000).toFixed(1)} kHz` : `${Math.round(f)} Hz`}))}),
      canvas,
      make("div", {className: "seconds", "aria-hidden": "true", children: [0, .25, .5, .75, 1].map(share =>
        make("span", {text: clock(share * answer.duration)}))}),
    ]}),
    make("p", {className: "quiet", text: `Bright: what speaks for ${why.genre}. Found by covering one cell of the picture after the other.`}),
    button,
  );
  const draw = () => paint(canvas, answer, why);
  new ResizeObserver(draw).observe(canvas.parentElement);
}

function paint(canvas, answer, why) {
  if (!canvas.getBoundingClientRect().width) return;
  const {context, width, height} = surface(canvas), {data, width: columns, height: rows} = why.log_mel;
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const image = new ImageData(columns, rows);
  for (let i = 0; i < bytes.length; i++) {
    const value = bytes[i] * .62;
    image.data.set([value, value, value * 1.12, 255], 4 * i);
  }
  const picture = make("canvas", {width: columns, height: rows});
  picture.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(picture, 0, 0, width, height);
  const most = Math.max(1e-9, ...why.weights.flat()), bands = why.frequencies.length - 1;
  context.globalCompositeOperation = "screen";
  why.weights.forEach((row, i) => row.forEach((weight, band) => {
    if (weight <= 0) return;
    const left = why.times[i] / answer.duration * width, right = why.times[i + 1] / answer.duration * width;
    context.fillStyle = `rgb(255 140 20 / ${.85 * weight / most})`;
    context.fillRect(left, height * (1 - (band + 1) / bands), right - left + .5, height / bands + .5);
  }));
  context.globalCompositeOperation = "source-over";
  context.strokeStyle = "#ffb74d";
  context.lineWidth = 2;
  for (const [start, end] of why.seconds) {
    const left = start / answer.duration * width;
    context.strokeRect(left + 1, 1, (end - start) / answer.duration * width - 2, height - 2);
  }
}
