// Songs as dots in the plane, drawn with WebGL: pan, zoom, hover, click, lasso.
import "./d3/d3.min.js";
import {$, createElement, keepDrawn} from "./dom.js";
import * as twgl from "./twgl/twgl-full.module.js";

const {d3} = globalThis, GREY = "#9a9a9a", SWATCHES = 5, MAX_ZOOM = 400;
const MARGIN = .95, RADIUS = 14; // of the half size; CSS pixels in which a dot is hit
const REST = 150, SLOW = 19, MIN_DOTS = 3000; // ms after which dots rest; ms of a slow frame; dots while they move
const DIMMED = 0, SHOWN = 128, LARGE = 255; // in the place of a color's alpha
const BYTES = Uint8Array;
const COLUMNS = {positions: Float32Array, year: Uint16Array, genre: BYTES, confidence: BYTES, tag: BYTES};
const VERTEX = `#version 300 es
in vec2 position; in vec4 color; out vec4 fill; uniform vec4 place; uniform float size; uniform bool front;
void main() {
  bool dimmed = color.a < .1;
  gl_Position = dimmed == front ? vec4(2, 2, 2, 1) : vec4(position * place.xy + place.zw, 0, 1);
  gl_PointSize = dimmed ? max(1.5, .5 * size) : color.a > .9 ? 1.5 * size : size;
  fill = vec4(color.rgb, dimmed ? .18 : .9);
}`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec4 fill; out vec4 result;
void main() {
  float alpha = fill.a * smoothstep(1., .7, 2. * length(gl_PointCoord - .5));
  result = vec4(fill.rgb * alpha, alpha);
}`;

export class SongMap {
  /** Handlers: `hover` and `click` (row or null), `select(rows)`, `colorOf(genre)`. Throws without WebGL 2. */
  constructor(canvas, handlers) {
    Object.assign(this, {canvas, handlers, by: "genre", matching: null, playing: null, transform: d3.zoomIdentity});
    const gl = this.gl = canvas.getContext("webgl2", {antialias: false});
    this.program = twgl.createProgramInfo(gl, [VERTEX, FRAGMENT]);
    gl.useProgram(this.program.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.zoom = d3.zoom().scaleExtent([1, MAX_ZOOM]).on("zoom", ({transform}) => this.move(transform)).filter(event =>
      !event.button && !this.isLasso(event) && event.touches?.length !== 1); // one finger scrolls the page
    d3.select(canvas).call(this.zoom).on("dblclick.zoom", null)
      .on("pointerdown", event => this.startLasso(event)).on("pointermove", event => this.track(event))
      .on("pointerup", () => this.endLasso()).on("pointerleave", () => handlers.hover(null))
      .on("click", event => this.data && !this.isLasso(event) && handlers.click(this.rowAt(event)));
    keepDrawn(canvas, () => this.recolor());
  }

  /** Show the server's data: see LibraryTable.map. */
  show(buffer) {
    let start = 4 + new DataView(buffer).getUint32(0, true);
    const data = this.data = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4)));
    for (const [name, Kind] of Object.entries(COLUMNS)) {
      data[name] = new Kind(buffer, start, (name === "positions" ? 2 : 1) * data.songs);
      start += data[name].byteLength;
    }
    this.most = data.songs;
    this.order = d3.shuffle(Uint32Array.from(data.tag, (_, row) => row));
    this.recolor();
  }

  /** The colors of the values of the column `by`, and a legend: names with colors. */
  palette() {
    const {by, data: {year, tags, genres}} = this;
    if (by === "genre") return [genres.map(this.handlers.colorOf), []];
    if (by === "tag") return [d3.schemeTableau10, tags.slice(0, 10).map((tag, i) => [tag, d3.schemeTableau10[i]])];
    const [low, high] = by === "year" ? d3.extent(year.filter(Boolean)) : [0, 255];
    const color = d3.scaleSequential([low, high], d3.interpolateViridis);
    const text = by === "year" ? String : value => d3.format(".0%")(value / high);
    return [d3.range(high + 1).map(value => value < low ? GREY : color(value)),
      d3.quantize(d3.interpolateRound(low, high), SWATCHES).map(value => [text(value), color(value)])];
  }

  /** Draw anew, with these rows lit up, or all for null. */
  recolor(matching = this.matching) {
    this.matching = matching;
    if (!this.data) return;
    const {by, order, data: {songs, positions, [by]: codes}} = this, [names, legend] = this.palette();
    const channels = [...names, GREY].map(name => Object.values(d3.rgb(name)).slice(0, 3));
    const color = this.colors = new Uint8Array(4 * songs).fill(matching ? DIMMED : SHOWN);
    for (const row of matching ?? []) color[4 * row + 3] = matching.length < songs / 50 ? LARGE : SHOWN;
    for (let row = 0; row < songs; row++) color.set(channels[codes[row]] ?? channels.at(-1), 4 * row);
    this.buffers = twgl.createBufferInfoFromArrays(this.gl,
      {position: {numComponents: 2, data: positions}, color, indices: {numComponents: 1, data: order}});
    $("legend").replaceChildren(...legend.map(([name, css]) =>
      createElement("li", {className: "genre", css: {"--genre": css}}, name)));
    this.schedule();
  }

  schedule() { if (this.data) this.frame ||= requestAnimationFrame(() => this.draw()); }

  draw() {
    const {gl, canvas, buffers, program, data: {songs}, transform: {k}} = this, [x, y] = this.toPixels([0, 0]);
    const place = [MARGIN * k, MARGIN * k, 2 * x / canvas.clientWidth - 1, 1 - 2 * y / canvas.clientHeight];
    const size = devicePixelRatio * Math.min(24, Math.min(11, Math.max(2.2, 300 / Math.sqrt(songs))) * k ** .4);
    this.frame = 0;
    if (twgl.resizeCanvasToDisplaySize(canvas, devicePixelRatio)) {
      this.zoom.translateExtent([[0, 0], [canvas.clientWidth, canvas.clientHeight]]);
    }
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    twgl.setBuffersAndAttributes(gl, program, buffers);
    for (const front of this.matching ? [0, 1] : [1]) { // what is lit up comes last
      twgl.setUniforms(program, {place, size, front});
      twgl.drawBufferInfo(gl, buffers, gl.POINTS, this.moving ? this.most : songs);
    }
    const now = performance.now(), change = now - this.last > SLOW ? .5 : 1.02;
    if (this.moving && this.last) this.most = Math.min(songs, Math.max(MIN_DOTS, change * this.most)); // without a GPU
    this.last = now;
    $("ring").setAttribute("transform", `translate(${this.playing === null ? [-99, -99] : this.at(this.playing)})`);
  }

  move(transform) {
    if (!this.moving) this.last = 0;
    clearTimeout(this.moving);
    this.moving = setTimeout(() => { this.moving = 0; this.schedule(); }, REST);
    this.transform = transform;
    this.handlers.hover(null);
    this.schedule();
  }

  zoomBy(factor) { this.zoom.scaleBy(d3.select(this.canvas), factor); }

  /** A place in the plane -> CSS pixels, and back. */
  toPixels([x, y]) {
    const {clientWidth: width, clientHeight: height} = this.canvas;
    return this.transform.apply([(1 + MARGIN * x) * width / 2, (1 - MARGIN * y) * height / 2]);
  }
  toPlane(point) {
    const {clientWidth: width, clientHeight: height} = this.canvas, [x, y] = this.transform.invert(point);
    return [(2 * x / width - 1) / MARGIN, (1 - 2 * y / height) / MARGIN];
  }
  placeOf(row) { return this.data.positions.subarray(2 * row, 2 * row + 2); }
  at(row) { return this.toPixels(this.placeOf(row)); }

  /** The row of the nearest dot that is lit up, or null. */
  rowAt({offsetX, offsetY}) {
    const {data: {positions, songs}, colors} = this, [x, y] = this.toPlane([offsetX, offsetY]);
    const [left, top] = this.toPixels([0, 0]), [right, bottom] = this.toPixels([1, 1]), {hypot} = Math;
    let nearest = null, least = RADIUS;
    for (let row = 0; row < songs; row++) {
      const distance = hypot((positions[2 * row] - x) * (right - left), (positions[2 * row + 1] - y) * (bottom - top));
      if (distance < least && colors[4 * row + 3]) [nearest, least] = [row, distance];
    }
    return nearest;
  }

  isLasso({type, shiftKey}) { return type !== "wheel" && (shiftKey || $("lasso").ariaPressed === "true"); }

  startLasso(event) {
    if (!this.isLasso(event) || event.button) return;
    this.lasso = [[event.offsetX, event.offsetY]];
    this.handlers.hover(null);
    this.canvas.setPointerCapture(event.pointerId);
  }

  track(event) {
    if (!this.lasso) return this.data && !event.buttons && this.handlers.hover(this.rowAt(event));
    this.lasso.push([event.offsetX, event.offsetY]);
    $("outline").setAttribute("points", this.lasso.join(" "));
  }

  endLasso() {
    if (!this.lasso) return;
    const area = this.lasso.map(point => this.toPlane(point));
    const rows = d3.range(this.data.songs).filter(row =>
      this.colors[4 * row + 3] && d3.polygonContains(area, this.placeOf(row)));
    this.lasso = null;
    $("lasso").ariaPressed = "false";
    $("outline").setAttribute("points", "");
    if (rows.length) this.handlers.select(rows);
  }
}
