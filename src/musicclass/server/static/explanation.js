// What a prediction rests on: the log-mel spectrogram, with the cells of greatest weight.
import {clock, createElement, drawOn, keepDrawn} from "./dom.js";

const hertz = f => f >= 1000 ? `${(f / 1000).toFixed(1)} kHz` : `${Math.round(f)} Hz`;

/** Fill a card's .explanation; `play(spans)` plays parts of the song. */
export function showExplanation(section, {file, duration}, explanation, play) {
  const {frequencies, genre, top_spans, top_band} = explanation, [low, high] = top_band.map(Math.round);
  const spans = top_spans.map(([start, end]) => `${clock(start)}-${clock(end)}`).join(", ");
  const summary = `Strongest evidence for ${genre}: ${spans}; ${low}-${high} Hz`;
  const canvas = createElement("canvas", {role: "img", ariaLabel: `Spectrogram of ${file}; ${summary}`});
  const starts = top_spans.map(([start]) => clock(start)).join(", ");
  const labels = (className, texts) =>
    createElement("div", {className, ariaHidden: "true"}, ...texts.map(text => createElement("span", {}, text)));
  section.replaceChildren(
    createElement("p", {}, `${summary}.`),
    createElement("div", {className: "spectrogram"},
      labels("frequencies", frequencies.filter((_, i) => i % 2 === 0).map(hertz)), canvas,
      labels("times", [0, .25, .5, .75, 1].map(share => clock(share * duration)))),
    createElement("p", {className: "muted"}, `Orange: occluding it makes ${genre} less probable. Framed: most so.`),
    createElement("button", {type: "button", onclick: () => play(top_spans)}, `Play these parts (${starts})`));
  const image = spectrogram(explanation.log_mel);
  keepDrawn(canvas, () => drawOn(canvas, (context, width, height) => {
    context.drawImage(image, 0, 0, width, height);
    drawWeights(context, explanation, width / duration, height);
  }));
}

function spectrogram({width, height, data}) {
  const canvas = createElement("canvas", {width, height}), image = new ImageData(width, height);
  data.forEach((value, i) => image.data.set([.62 * value, .62 * value, .69 * value, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function drawWeights(context, {weights, times, frequencies, top_spans}, perSecond, height) {
  const largest = Math.max(1e-9, ...weights.flat()), tall = height / (frequencies.length - 1);
  context.globalCompositeOperation = "screen";
  weights.forEach((row, i) => row.forEach((weight, band) => {
    const left = times[i] * perSecond, wide = (times[i + 1] - times[i]) * perSecond;
    context.fillStyle = `rgb(255 140 20 / ${Math.max(0, .85 * weight / largest)})`;
    context.fillRect(left, height - (band + 1) * tall, wide + .5, tall + .5);
  }));
  context.globalCompositeOperation = "source-over";
  context.strokeStyle = "#ffb74d";
  context.lineWidth = 2;
  for (const [start, end] of top_spans) {
    context.strokeRect(start * perSecond + 1, 1, (end - start) * perSecond - 2, height - 2);
  }
}
