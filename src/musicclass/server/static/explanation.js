// What a prediction rests on: words, and the log-mel spectrogram with the cells of greatest weight.
import {clock} from "./dom.js";

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

/** An explanation in words: a summary, and labels of the frequencies. */
export function explanationText({genre, frequencies, top_spans, top_band}) {
  const spans = top_spans.map(span => span.map(clock).join("-")).join(", ");
  return {
    summary: `Strongest evidence for ${genre}: ${bandText(top_band)}, at ${spans}`,
    frequencies: frequencies.filter((_, i) => i % 2 === 0).map(hertz),
  };
}

/** What speaks against a genre: the cells whose occlusion makes it more probable. */
export function evidenceAgainst({genre, weights, times, frequencies}) {
  const sums = rows => rows.map(row => row.reduce((total, weight) => total + Math.min(0, weight), 0));
  const byTime = sums(weights), byBand = sums(weights[0].map((_, band) => weights.map(row => row[band])));
  const [cell, band] = [byTime, byBand].map(values => values.indexOf(Math.min(...values)));
  const sound = bandText(frequencies.slice(band, band + 2));
  return byTime[cell] ? `Strongest evidence against ${genre}: ${sound}, most at ${clock(times[cell])}.`
    : `Nothing in it speaks against ${genre} by itself; another genre has more evidence.`;
}

/** Paint the spectrogram, orange where occluding it makes the genre less probable; CSS scales the canvas. */
export function paintSpectrogram(canvas, {log_mel: {width, height, data}, weights}) {
  const image = new ImageData(width, height), largest = Math.max(1e-9, ...weights.flat());
  data.forEach((value, i) => image.data.set([.62 * value, .62 * value, .69 * value, 255], 4 * i));
  Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d"), wide = width / weights.length, tall = height / weights[0].length;
  context.putImageData(image, 0, 0);
  context.globalCompositeOperation = "screen";
  weights.forEach((row, cell) => row.forEach((weight, band) => {
    context.fillStyle = `rgb(255 140 20 / ${Math.max(0, .85 * weight / largest)})`;
    context.fillRect(cell * wide, height - (band + 1) * tall, wide, tall);
  }));
}
