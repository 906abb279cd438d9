// Songs as dots in the plane, drawn with WebGL: pan, zoom, hover, click, lasso. Without WebGL 2, the import fails.
import "./lib/d3/d3.min.js";
import {$} from "./dom.js";
import {genreColor} from "./prediction.js";
import * as twgl from "./lib/twgl/twgl-full.module.js";

const {d3} = globalThis, GREY = "#9a9a9a", SWATCHES = 5, MAX_ZOOM = 400;
const MARGIN = .95, RADIUS = 14; // of the half size; CSS pixels in which a dot is hit
const SLOW = 19, MIN_DOTS = 3000; // ms of a slow frame; dots while they move
const DIMMED = 0, SHOWN = 128, LARGE = 255; // in the place of a color's alpha
const COLUMNS =
  {positions: Float32Array, year: Uint16Array, genre: Uint8Array, confidence: Uint8Array, tag: Uint8Array};
const VERTEX = `#version 300 es
in vec2 position; in vec4 color; out vec4 fill; uniform vec2 area, shift; uniform float zoom, size; uniform bool front;
void main() {
  bool dimmed = color.a < .1;
  vec2 place = 2. * (position * zoom + shift) / area - 1.;
  gl_Position = dimmed == front ? vec4(2, 2, 2, 1) : vec4(place.x, -place.y, 0, 1);
  gl_PointSize = dimmed ? max(1.5, .5 * size) : color.a > .9 ? 1.5 * size : size;
  fill = vec4(color.rgb, dimmed ? .18 : .9);
}`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec4 fill; out vec4 result;
void main() {
  float alpha = fill.a * smoothstep(1., .7, 2. * length(gl_PointCoord - .5));
  result = vec4(fill.rgb * alpha, alpha);
}`;

const canvas = $("map"), gl = canvas.getContext("webgl2", {antialias: false});
const programInfo = twgl.createProgramInfo(gl, [VERTEX, FRAGMENT]);
gl.enable(gl.BLEND);
gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
let data = {songs: 0, order: []}, places = [], colors = []; // places in CSS pixels, before the zoom
let bufferInfo = null, matching = null, playing = null; // rows
let transform = d3.zoomIdentity, frame = 0, moving = 0, most = 20_000; // gestures; dots while they move

const zoom = d3.zoom().scaleExtent([1, MAX_ZOOM]);
export const zoomBy = factor => zoom.scaleBy(d3.select(canvas), factor);

/** Calls `hover` and `play` (row or null), and `select` (rows); state: `isLasso`, and its `outline`. */
export function start(state, {hover, play, select}) {
  const isLasso = ({type, shiftKey}) => type !== "wheel" && (shiftKey || state.isLasso);
  zoom.filter(event => !event.button && !isLasso(event) && event.touches?.length !== 1) // one finger scrolls the page
    .on("start end", ({type}) => { moving += type === "start" ? 1 : -1; schedule(); })
    .on("zoom", event => { ({transform} = event); hover(null); schedule(); });
  const lasso = d3.drag().container(canvas).filter(event => !event.button && isLasso(event)).subject(() => [])
    .on("start drag", ({subject, x, y}) => { subject.push([x, y]); state.outline = subject.join(" "); hover(null); })
    .on("end", ({subject}) => {
      const rows = d3.range(data.songs).filter(row => colors[4 * row + 3] && d3.polygonContains(subject, at(row)));
      Object.assign(state, {isLasso: false, outline: ""});
      if (rows.length) select(rows);
    });
  d3.select(canvas).call(zoom).on("dblclick.zoom", null).call(lasso).style("touch-action", null)
    .on("pointermove", event => { if (!event.buttons) hover(rowAt(event)); }).on("pointerleave", () => hover(null))
    .on("click", event => { if (!isLasso(event)) play(rowAt(event)); });
}

/** The server's data: see LibraryTable.map. */
export function read(buffer) {
  let start = 4 + new DataView(buffer).getUint32(0, true);
  const read = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4)));
  for (const [name, Kind] of Object.entries(COLUMNS)) {
    read[name] = new Kind(buffer, start, (name === "positions" ? 2 : 1) * read.songs);
    start += read[name].byteLength;
  }
  const order = d3.shuffle(Uint32Array.from(read.tag, (_, row) => row));
  return Object.freeze({...read, order, hasYears: read.year.some(Boolean)});
}

/** The colors of the values of a column, and a legend: names with colors. */
function palette({year, tags, genres}, column) {
  if (column === "genre") return [genres.map(genreColor), []];
  if (column === "tag") return [d3.schemeTableau10, d3.zip(tags, d3.schemeTableau10)];
  const [low, high] = column === "year" ? d3.extent(year.filter(Boolean)) : [0, 255];
  const color = d3.scaleSequential([low, high], d3.interpolateViridis);
  const text = column === "year" ? String : value => d3.format(".0%")(value / high);
  return [d3.range(high + 1).map(value => value < low ? GREY : color(value)),
    d3.quantize(d3.interpolateRound(low, high), SWATCHES).map(value => [text(value), color(value)])];
}

/** Draw data, colored by a column, with these rows lit up (null: all), and one ringed; returns the legend. */
export function show(shown, column, matchingRows, playingRow) {
  [data, matching, playing] = [shown, matchingRows, playingRow];
  const {songs, order, [column]: codes} = data, [names, legend] = palette(data, column);
  const {clientWidth: width, clientHeight: height} = canvas;
  places = data.positions.map((value, i) => (i % 2 ? (1 - MARGIN * value) * height : (1 + MARGIN * value) * width) / 2);
  const channels = [...names, GREY].map(name => Object.values(d3.rgb(name)).slice(0, 3));
  colors = new Uint8Array(4 * songs).fill(matching ? DIMMED : SHOWN);
  for (const row of matching ?? []) colors[4 * row + 3] = matching.length < songs / 50 ? LARGE : SHOWN;
  codes.forEach((code, row) => colors.set(channels[code] ?? channels.at(-1), 4 * row));
  bufferInfo = twgl.createBufferInfoFromArrays(gl,
    {position: {numComponents: 2, data: places}, color: colors, indices: {numComponents: 1, data: order}});
  schedule();
  return legend;
}

const schedule = () => { if (bufferInfo) frame ||= requestAnimationFrame(draw); };

function draw() {
  const {songs} = data, {clientWidth: width, clientHeight: height} = canvas, {k, x, y} = transform;
  const size = devicePixelRatio * Math.min(24, Math.min(11, Math.max(2.2, 300 / Math.sqrt(songs))) * k ** .4);
  const begin = performance.now(), count = moving ? Math.min(most, songs) : songs;
  frame = 0;
  if (twgl.resizeCanvasToDisplaySize(canvas, devicePixelRatio)) zoom.translateExtent([[0, 0], [width, height]]);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clear(gl.COLOR_BUFFER_BIT);
  twgl.drawObjectList(gl, (matching ? [false, true] : [true]).map(front => ({ // what is lit up comes last
    programInfo, bufferInfo, type: gl.POINTS, count,
    uniforms: {area: [width, height], shift: [x, y], zoom: k, size, front},
  })));
  $("ring").setAttribute("transform", `translate(${playing === null ? [-99, -99] : at(playing)})`);
  if (moving) requestAnimationFrame(() => { // fewer dots where frames are late, without a GPU
    most = Math.min(songs, Math.max(MIN_DOTS, most * (performance.now() - begin > SLOW ? .5 : 1.02)));
  });
}

export const at = row => transform.apply(places.subarray(2 * row, 2 * row + 2));

/** The row of the nearest dot that is lit up, or null. */
function rowAt({offsetX, offsetY}) {
  const [x, y] = transform.invert([offsetX, offsetY]);
  let nearest = null, least = (RADIUS / transform.k) ** 2;
  for (let row = 0; row < data.songs; row++) {
    const distance = (places[2 * row] - x) ** 2 + (places[2 * row + 1] - y) ** 2;
    if (distance < least && colors[4 * row + 3]) [nearest, least] = [row, distance];
  }
  return nearest;
}
