// A song's waveform and time line, with a playhead through both.
import {clock, colour, drawLine, inks, inWords, segmentAt, surface} from "./common.js";

let playing = null; // one song at a time

export class Player {
  /** `root` is a card's .heard; `url` is what the browser can play. */
  constructor(root, url, answer) {
    this.root = root;
    this.answer = answer;
    this.audio = new Audio();
    this.audio.preload = "none";
    this.audio.src = url;
    this.wave = root.querySelector(".wave");
    this.line = root.querySelector(".line");
    this.slider = root.querySelector("input");
    this.button = root.querySelector(".play");
    this.gone = new AbortController();
    this.following = 0; // the animation frame that is to come
    this.spans = null; // stretches to play, one after the other; else all of it
    this.slider.max = answer.duration;
    this.slider.setAttribute("aria-label", `Place in ${answer.file}`);
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.slider.addEventListener("pointerup", () => this.play());
    this.slider.addEventListener("pointermove", event => this.point(event));
    this.slider.addEventListener("pointerleave", () => this.show());
    this.button.addEventListener("click", () => { this.spans = null; this.toggle(); });
    this.audio.addEventListener("ended", () => this.stop());
    this.audio.addEventListener("error", () => {
      this.button.disabled = true;
      this.button.textContent = "Can't be played here";
    });
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(root.querySelector(".strip"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(), {signal: this.gone.signal});
    this.at = 0;
    this.show();
  }

  draw() {
    if (!this.wave.getBoundingClientRect().width) return;
    drawLine(this.line, this.answer);
    this.under = this.line.getContext("2d").getImageData(0, 0, this.line.width, this.line.height);
    this.drawHead();
  }

  /** The waveform, its heard part strong, and the playhead. */
  drawHead() {
    const {context, width, height} = surface(this.wave), ink = inks(), peaks = this.answer.peaks;
    const head = Math.round(this.at / this.answer.duration * width), most = Math.max(.05, ...peaks);
    const count = Math.max(1, Math.min(peaks.length, Math.floor(width / 3))), step = width / count;
    for (let i = 0; i < count; i++) {
      const from = Math.floor(i * peaks.length / count), to = Math.max(from + 1, Math.floor((i + 1) * peaks.length / count));
      const tall = Math.max(1.5, Math.max(...peaks.slice(from, to)) / most * (height - 4));
      const x = i * step, part = segmentAt(this.answer, x / width * this.answer.duration);
      context.fillStyle = x < head ? colour(part.genre === "unknown" ? part.best_guess : part.genre) : ink.quiet;
      context.globalAlpha = x < head || !this.at ? 1 : .6;
      context.fillRect(x, (height - tall) / 2, Math.max(1, step - 1), tall);
    }
    context.globalAlpha = 1;
    if (this.under) {
      const line = this.line.getContext("2d");
      line.putImageData(this.under, 0, 0);
      line.fillStyle = ink.ink;
      const ratio = devicePixelRatio || 1;
      if (this.at) line.fillRect(head - 1, 0, 2, this.line.height / ratio);
    }
    context.fillStyle = ink.ink;
    if (this.at) context.fillRect(head - 1, 0, 2, height);
  }

  /** Where it is, in words. */
  show(at = this.at) {
    const words = inWords(segmentAt(this.answer, at));
    this.root.querySelector(".time").textContent = `${clock(at)} / ${clock(this.answer.duration)}`;
    this.root.querySelector(".now").textContent = words;
    this.slider.setAttribute("aria-valuetext", `${clock(at)}, ${words}`);
  }

  point(event) {
    const box = this.slider.getBoundingClientRect();
    this.show(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * this.answer.duration);
  }

  seek(seconds) {
    this.spans = null;
    this.at = seconds;
    this.audio.currentTime = seconds;
    this.show();
    this.drawHead();
  }

  async play() {
    if (this.button.disabled) return;
    if (playing && playing !== this) playing.stop();
    playing = this;
    try {
      if (!this.audio.currentTime && this.at) this.audio.currentTime = this.at;
      await this.audio.play();
    } catch {
      return; // stopped before it began, or the error event says why
    }
    this.button.textContent = "Pause";
    this.following ||= requestAnimationFrame(() => this.follow());
  }

  /** Play stretches, one after the other. */
  playSpans(spans) {
    this.seek(spans[0][0]);
    this.spans = spans.map(span => [...span]);
    this.play();
  }

  stop() {
    this.audio.pause();
    this.button.textContent = "Play";
  }

  toggle() {
    if (this.audio.paused) this.play();
    else this.stop();
  }

  follow() {
    this.following = 0;
    if (this.audio.paused) {
      this.button.textContent = "Play";
      return;
    }
    this.at = this.audio.currentTime;
    if (this.spans && this.at >= this.spans[0][1]) {
      this.spans.shift();
      if (this.spans.length) this.audio.currentTime = this.spans[0][0];
      else { this.spans = null; this.stop(); }
    }
    this.slider.value = this.at;
    if (!this.slider.matches(":hover")) this.show();
    this.drawHead();
    this.following = requestAnimationFrame(() => this.follow());
  }

  remove() {
    this.stop();
    this.gone.abort();
    this.sizes.disconnect();
    this.audio.removeAttribute("src");
    this.audio.load();
  }
}
