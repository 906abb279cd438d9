// Waveform -> log-mel -> scaled windows -> MFCC, as in musicclass/features.py, which the tests hold it against.

const melOf = hz => hz < 1000 ? hz * 3 / 200 : 15 + 27 * Math.log(hz / 1000) / Math.log(6.4);
const hzOf = mel => mel < 15 ? mel * 200 / 3 : 1000 * Math.exp((mel - 15) * Math.log(6.4) / 27);
const FLOOR = 1e-10;

/** Triangles of equal area: for each band its first bin and its weights. */
function filterbank({sample_rate, n_fft, n_mels, n_bands, fmin, fmax}) {
  const low = melOf(fmin), high = melOf(fmax), bins = n_fft / 2 + 1;
  const edges = Array.from({length: n_mels + 2}, (_, i) => hzOf(low + (high - low) * i / (n_mels + 1)));
  return Array.from({length: n_bands}, (_, band) => {
    const [left, centre, right] = edges.slice(band, band + 3);
    let first = 0;
    const weights = [];
    for (let bin = 0; bin < bins; bin++) {
      const f = bin * sample_rate / n_fft;
      const weight = Math.min((f - left) / (centre - left), (right - f) / (right - centre)) * 2 / (right - left);
      if (weight > 0) {
        if (!weights.length) first = bin;
        weights.push(weight);
      }
    }
    return {first, weights: Float64Array.from(weights)};
  });
}

/** In place, of a power of two. */
class Fft {
  constructor(size) {
    this.size = size;
    this.cos = Float64Array.from({length: size / 2}, (_, i) => Math.cos(2 * Math.PI * i / size));
    this.sin = Float64Array.from({length: size / 2}, (_, i) => -Math.sin(2 * Math.PI * i / size));
    const bits = Math.log2(size);
    this.reversed = Uint32Array.from({length: size}, (_, i) => {
      let value = 0;
      for (let bit = 0; bit < bits; bit++) value |= (i >> bit & 1) << (bits - 1 - bit);
      return value;
    });
  }

  run(real, imaginary) {
    const {size, cos, sin, reversed} = this;
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j > i) {
        const x = real[i], y = imaginary[i]; // swapped by hand: as pairs, it is slow in Firefox
        real[i] = real[j];
        imaginary[i] = imaginary[j];
        real[j] = x;
        imaginary[j] = y;
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0, at = 0; k < half; k++, at += step) {
          const a = start + k, b = a + half;
          const x = real[b] * cos[at] - imaginary[b] * sin[at], y = real[b] * sin[at] + imaginary[b] * cos[at];
          real[b] = real[a] - x;
          imaginary[b] = imaginary[a] - y;
          real[a] += x;
          imaginary[a] += y;
        }
      }
    }
  }
}

/** Frames of n_bands values in dB, one after the other. */
export function logMel(samples, features, tell = () => {}) {
  const {n_fft, hop_length, n_bands} = features, half = n_fft / 2;
  const count = 1 + Math.floor(samples.length / hop_length), frames = new Float32Array(count * n_bands);
  const bank = filterbank(features), fft = new Fft(n_fft);
  const hann = Float64Array.from({length: n_fft}, (_, i) => .5 - .5 * Math.cos(2 * Math.PI * i / n_fft));
  const real = new Float64Array(n_fft), imaginary = new Float64Array(n_fft), power = new Float64Array(half + 1);
  const fill = (target, frame) => {
    const start = frame * hop_length - half, end = Math.min(n_fft, samples.length - start);
    target.fill(0);
    for (let i = Math.max(0, -start); i < end; i++) target[i] = samples[start + i] * hann[i];
  };
  const write = frame => bank.forEach(({first, weights}, band) => {
    let sum = 0;
    for (let i = 0; i < weights.length; i++) sum += weights[i] * power[first + i];
    frames[frame * n_bands + band] = 10 * Math.log10(Math.max(FLOOR, sum));
  });
  for (let frame = 0; frame < count; frame += 2) { // two real signals in one complex transform
    fill(real, frame);
    if (frame + 1 < count) fill(imaginary, frame + 1); else imaginary.fill(0);
    fft.run(real, imaginary);
    const parts = sign => {
      for (let bin = 0; bin <= half; bin++) {
        const mirror = (n_fft - bin) % n_fft;
        const x = (real[bin] + sign * real[mirror]) / 2, y = (imaginary[bin] - sign * imaginary[mirror]) / 2;
        power[bin] = x * x + y * y;
      }
    };
    parts(1);
    write(frame);
    if (frame + 1 < count) { parts(-1); write(frame + 1); }
    if (frame % 512 === 0) tell(frame / count);
  }
  return frames;
}

/** To the even neighbour when between two, as Python does. */
function roundEven(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== .5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}

/** Frames in a window, and in the stretch around it that it is scaled by. */
export function lengths({sample_rate, hop_length, window_seconds, scale_seconds}) {
  const rate = sample_rate / hop_length;
  return {window: roundEven(window_seconds * rate), scale: roundEven(scale_seconds * rate)};
}

export function windowStarts(count, features) {
  const {window} = lengths(features), spare = count - window;
  if (spare <= 0) return [0];
  const windows = Math.ceil(count / window);
  return Array.from({length: windows}, (_, i) => roundEven(i * spare / (windows - 1)));
}

/** A window in dB above the floor; `sounds` is false where all of it is one value. */
export function scaleWindow(frames, start, features) {
  const {n_bands, top_db} = features, {window, scale} = lengths(features), count = frames.length / n_bands;
  const length = Math.min(window, count - start);
  const first = Math.max(0, Math.min(start + Math.floor((length - scale) / 2), count - scale));
  let high = -Infinity, low = Infinity;
  for (const value of frames.subarray(first * n_bands, (first + Math.min(scale, count)) * n_bands)) {
    if (value > high) high = value;
    if (value < low) low = value;
  }
  const values = new Float32Array(length * n_bands);
  let sounds = false;
  if (high > low) {
    for (let i = 0; i < values.length; i++) values[i] = Math.max(0, frames[start * n_bands + i] - high + top_db);
    sounds = values.some(value => value !== values[0]);
  }
  return {values, length, sounds};
}

const matrices = new Map();
function dct(bands, count) {
  if (!matrices.has(bands)) {
    matrices.set(bands, Float64Array.from({length: bands * count}, (_, i) => {
      const band = Math.floor(i / count), k = i % count;
      return Math.sqrt((k ? 2 : 1) / bands) * Math.cos(Math.PI * k * (2 * band + 1) / (2 * bands));
    }));
  }
  return matrices.get(bands);
}

/** (length, n_bands) -> (length, n_mfcc), orthonormal DCT-II. */
export function mfcc(values, length, {n_bands, n_mfcc}) {
  const matrix = dct(n_bands, n_mfcc), coefficients = new Float32Array(length * n_mfcc), row = new Float64Array(n_mfcc);
  for (let frame = 0; frame < length; frame++) {
    row.fill(0);
    for (let band = 0; band < n_bands; band++) {
      const value = values[frame * n_bands + band];
      if (value) for (let k = 0; k < n_mfcc; k++) row[k] += value * matrix[band * n_mfcc + k];
    }
    coefficients.set(row, frame * n_mfcc);
  }
  return coefficients;
}

/** Edges in Hz between `groups` groups of mel bands. */
export function groupEdges({n_bands, n_mels, fmin, fmax}, groups) {
  const low = melOf(fmin), high = melOf(fmax);
  return Array.from({length: groups + 1}, (_, group) => {
    const first = Math.ceil(group * n_bands / groups);
    return hzOf(low + (high - low) * (first + .5 * (first > 0)) / (n_mels + 1));
  });
}
