// What a prediction rests on: words, and the log-mel spectrogram with the cells of greatest weight.
import {clock, createElement, drawOn, keepDrawn} from "./dom.js";

const BANDS = [ // up to a frequency in Hz, what sounds there
  [150, "the bass drum and the lowest bass"], [400, "the bass and low voices"],
  [1000, "voices, guitars and keys"], [2500, "the upper voices and the attack of instruments"],
  [5000, "the brightness of guitars, brass and consonants"], [Infinity, "bright cymbals and hiss"],
];
const hertz = f => f >= 1000 ? `${(f / 1000).toFixed(1)} kHz` : `${Math.round(f)} Hz`;
const bandText = ([low, high]) => {
  const center = Math.sqrt(Math.max(20, low) * high);
  return `${BANDS.find(([limit]) => center < limit)[1]} (${hertz(low)} to ${hertz(high)})`;
};

/**
 * Fill a card's .explanation, whose status announces it; `play(spans)` plays parts of the song; `whyNot` asks about
 * another genre.
 */
export function showExplanation(section, {file, genre: predicted, familiarity, duration}, explanation, play, whyNot) {
  const {frequencies, genre, top_spans, top_band} = explanation;
  const spans = top_spans.map(([start, end]) => `${clock(start)}-${clock(end)}`).join(", ");
  const summary = `Strongest evidence for ${genre}: ${bandText(top_band)}, at ${spans}`;
  const canvas = createElement("canvas", {role: "img", ariaLabel: `Spectrogram of ${file}; ${summary}`});
  const labels = (className, texts) =>
    createElement("div", {className, ariaHidden: "true"}, ...texts.map(text => createElement("span", {}, text)));
  const unknown = predicted !== "unknown" ? [] : [createElement("p", {}, familiarity < .5
    ? `Unknown: unlike every genre of the training data (familiarity ${familiarity.toFixed(2)}; 0.5 is the limit).`
    : "Unknown: no genre is probable enough.")];
  const status = section.firstElementChild;
  status.textContent = `${summary}.`;
  status.nextElementSibling.remove();
  section.append(...unknown,
    createElement("div", {className: "spectrogram"},
      labels("frequencies", frequencies.filter((_, i) => i % 2 === 0).map(hertz)), canvas,
      labels("times", [0, .25, .5, .75, 1].map(share => clock(share * duration)))),
    createElement("p", {className: "muted"}, `Orange: occluding it makes ${genre} less probable. Framed: most so. `
      + "Of a long song, five parts are examined."),
    createElement("div", {className: "buttons"},
      createElement("button", {type: "button", ariaLabel: `Play these parts of ${file}`,
        onclick: () => play(top_spans)}, "Play these parts"), whyNot),
    createElement("p", {className: "against", role: "status"}));
  const image = spectrogram(explanation.log_mel);
  keepDrawn(canvas, () => drawOn(canvas, (context, width, height) => {
    context.drawImage(image, 0, 0, width, height);
    drawWeights(context, explanation, width / duration, height);
  }));
}

/** What speaks against a genre: the cells whose occlusion makes it more probable. */
export function evidenceAgainst({genre, weights, times, frequencies}) {
  const negative = weights.map(row => row.map(weight => Math.min(0, weight)));
  const sum = values => values.reduce((total, value) => total + value, 0), totals = negative.map(sum);
  const bands = negative[0].map((_, band) => sum(negative.map(row => row[band])));
  const cell = totals.indexOf(Math.min(...totals)), band = bands.indexOf(Math.min(...bands));
  if (!totals[cell]) return `Nothing in it speaks against ${genre} by itself; another genre has more evidence.`;
  const sound = bandText(frequencies.slice(band, band + 2));
  return `Strongest evidence against ${genre}: ${sound}, most at ${clock(times[cell])}.`;
}

export function spectrogram({width, height, data}) {
  const canvas = createElement("canvas", {width, height}), image = new ImageData(width, height);
  data.forEach((value, i) => image.data.set([.62 * value, .62 * value, .69 * value, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

export function drawWeights(context, {weights, times, frequencies, top_spans}, perSecond, height) {
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
