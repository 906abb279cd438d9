// A song's answer as a picture to keep or to send.
import {clock, colour, faded, reason, verdict} from "./common.js";

const WIDTH = 1200, HEIGHT = 630, EDGE = 56;
const INK = "#1d1f24", QUIET = "#5a5d66", PAPER = "#fffefb", TRACK = "#e9e5dc";

/** A PNG of 1200 by 630: name, genre, bars, waveform and time line. */
export function drawCard(name, answer) {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const context = canvas.getContext("2d");
  const write = (text, x, y, size, ink = INK, weight = 400, most = WIDTH - 2 * EDGE) => {
    context.font = `${weight} ${size}px system-ui, sans-serif`;
    context.fillStyle = ink;
    let shown = text;
    while (shown.length > 1 && context.measureText(shown).width > most) shown = `${shown.slice(0, -2)}…`;
    context.fillText(shown, x, y);
  };
  context.fillStyle = PAPER;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  write(name, EDGE, 84, 30, QUIET);
  context.fillStyle = colour(answer.genre);
  context.beginPath();
  context.arc(EDGE + 16, 141, 16, 0, 7);
  context.fill();
  write(verdict(answer), EDGE + 50, 160, 56, INK, 650);
  write(reason(answer), EDGE, 206, 26, QUIET);
  Object.entries(answer.probabilities).slice(0, 3).forEach(([genre, share], i) => {
    const y = 250 + 38 * i;
    write(genre, EDGE, y + 19, 22);
    context.fillStyle = TRACK;
    context.fillRect(EDGE + 130, y, 700, 22);
    context.fillStyle = colour(genre);
    context.fillRect(EDGE + 130, y, 700 * share, 22);
    write(`${Math.round(100 * share)}%`, EDGE + 850, y + 19, 22);
  });
  const wide = WIDTH - 2 * EDGE, most = Math.max(.05, ...answer.peaks), count = Math.min(270, answer.peaks.length);
  for (let i = 0; i < count; i++) {
    const some = answer.peaks.slice(Math.floor(i * answer.peaks.length / count), Math.ceil((i + 1) * answer.peaks.length / count));
    const tall = Math.max(2, Math.max(...some) / most * 120);
    context.fillStyle = "#8b8e96";
    context.fillRect(EDGE + i * wide / count, 450 - tall / 2, Math.max(1, wide / count - 1), tall);
  }
  for (const part of answer.segments) {
    const left = EDGE + part.start / answer.duration * wide, width = (part.end - part.start) / answer.duration * wide;
    context.fillStyle = part.genre === null ? TRACK : faded(colour(part.genre), part.genre === "unknown" ? .35 : .25 + .75 * part.confidence);
    context.fillRect(left, 522, width - 1, 34);
  }
  write("0:00", EDGE, 584, 20, QUIET);
  context.textAlign = "right";
  write(clock(answer.duration), WIDTH - EDGE, 584, 20, QUIET);
  context.textAlign = "left";
  write("musicclass", EDGE, 612, 18, QUIET);
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}
