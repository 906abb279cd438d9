// A song's waveform and timeline, with a playhead.
import {clock, drawOn, keepDrawn, themeColors} from "./dom.js";
import {drawTimeline, drawWaveform, segmentAt, summary} from "./prediction.js";

const WAVEFORM_SHARE = .73, GAP = 4; // of the canvas's height; pixels
let current = null; // one player sounds at a time

export class Player {
  /** `root` is a card's .player; `url` is that of the audio file. */
  constructor(root, url, prediction) {
    this.prediction = prediction;
    this.audio = new Audio();
    [this.canvas, this.slider, this.button, this.time, this.segment] =
      ["canvas", "input", ".play", ".time", ".segment"].map(selector => root.querySelector(selector));
    this.spans = []; // to play one after the other; empty: the whole song
    Object.assign(this.slider, {
      max: prediction.duration, ariaLabel: `Position in ${prediction.file}`,
      oninput: () => this.seek(Number(this.slider.value)), onpointerup: () => this.play(),
      onpointermove: ({offsetX}) => this.describe(offsetX / this.slider.clientWidth * prediction.duration),
      onpointerleave: () => this.describe(),
    });
    this.button.onclick = () => this.audio.paused ? this.play() : this.audio.pause();
    Object.assign(this.audio, {
      preload: "none", src: url,
      onplay: () => { this.button.textContent = "Pause"; }, onpause: () => { this.button.textContent = "Play"; },
      onerror: () => Object.assign(this.button, {disabled: true, textContent: "Can't be played in this browser"}),
    });
    keepDrawn(this.canvas, () => this.draw());
    this.describe();
  }

  get position() { return this.audio.currentTime; }

  draw() {
    drawOn(this.canvas, (context, width, height) => {
      const top = WAVEFORM_SHARE * height + GAP, colors = themeColors();
      drawWaveform(context, this.prediction, 0, 0, width, WAVEFORM_SHARE * height - GAP, colors, this.position);
      drawTimeline(context, this.prediction, 0, top, width, height - top, colors);
      const head = Math.round(this.position / this.prediction.duration * width);
      context.fillStyle = colors.ink;
      if (head) context.fillRect(head - 1, 0, 2, height);
    });
  }

  /** Show a time and its segment in words. */
  describe(seconds = this.position) {
    const text = summary(segmentAt(this.prediction, seconds));
    this.time.textContent = `${clock(seconds)} / ${clock(this.prediction.duration)}`;
    this.segment.textContent = text;
    this.slider.ariaValueText = `${clock(seconds)}, ${text}`;
  }

  seek(seconds) {
    this.spans = [];
    this.audio.currentTime = seconds;
    this.update();
  }

  update() {
    this.slider.value = this.position;
    if (!this.slider.matches(":hover")) this.describe();
    this.draw();
  }

  async play() {
    if (current !== this) current?.audio.pause();
    current = this;
    await this.audio.play().catch(() => {}); // paused before it began; the error event reports the rest
    if (!this.frame) this.follow();
  }

  /** Play spans [start, end] in seconds, one after the other. */
  playSpans(spans) {
    this.seek(spans[0][0]);
    this.spans = [...spans];
    this.play();
  }

  follow() {
    if (this.spans.length && this.position >= this.spans[0][1]) {
      this.spans.shift();
      if (this.spans.length) this.audio.currentTime = this.spans[0][0];
      else this.audio.pause();
    }
    this.update();
    this.frame = this.audio.paused ? 0 : requestAnimationFrame(() => this.follow());
  }

  remove() {
    this.audio.pause();
    this.audio.removeAttribute("src");
  }
}
