// A song's prediction as an image to keep or to send.
import {clock, createElement} from "./dom.js";
import {confidenceText, drawTimeline, drawWaveform, genreColor} from "./prediction.js";

const WIDTH = 1200, HEIGHT = 630, MARGIN = 56, INNER = WIDTH - 2 * MARGIN;
const COLORS = {ink: "#1d1f24", muted: "#5a5d66", paper: "#fffefb", track: "#e9e5dc"};

/** A PNG of 1200 x 630 pixels: name, genre, waveform and timeline. */
export function renderImage(name, prediction) {
  const canvas = createElement("canvas", {width: WIDTH, height: HEIGHT}), context = canvas.getContext("2d");
  const write = (text, x, y, size, color = COLORS.ink, weight = 400) => {
    context.font = `${weight} ${size}px system-ui, sans-serif`;
    context.fillStyle = color;
    let shown = text;
    while (shown.length > 1 && context.measureText(shown).width > INNER) shown = `${shown.slice(0, -2)}…`;
    context.fillText(shown, x, y);
  };
  context.fillStyle = COLORS.paper;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  write(name, MARGIN, 84, 30, COLORS.muted);
  context.fillStyle = genreColor(prediction.genre);
  context.beginPath();
  context.arc(MARGIN + 16, 141, 16, 0, 7);
  context.fill();
  write(prediction.genre, MARGIN + 50, 160, 56, COLORS.ink, 650);
  const tags = Object.keys(prediction.tags).join(", ");
  write([confidenceText(prediction), ...tags ? [tags] : []].join(" · "), MARGIN, 206, 26, COLORS.muted);
  drawWaveform(context, prediction, MARGIN, 260, INNER, 240, COLORS, prediction.duration);
  drawTimeline(context, prediction, MARGIN, 522, INNER, 34, COLORS);
  write("0:00", MARGIN, 584, 20, COLORS.muted);
  context.textAlign = "right";
  write(clock(prediction.duration), WIDTH - MARGIN, 584, 20, COLORS.muted);
  context.textAlign = "left";
  write("musicclass", MARGIN, 612, 18, COLORS.muted);
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}
