// The map: dots and thumbnails on a canvas, with pan, zoom and lasso.
const canvas = el("map"), context = canvas.getContext("2d");
const view = { scale: 1, x: 0, y: 0, width: 0, height: 0, ratio: 1 }; // screen = place * scale + (x, y), in CSS pixels
const SX = new Float32Array(N), SY = new Float32Array(N);
const MOST_DOTS = 60000, MOST_TILES = 700; // drawn at a time
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#c2408f", "#b8860b", "#56b4e9", "#6a4fc3", "#8c564b", "#d62728", "#5a9e2f", "#17a2a8", "#7f5f00"];
const DARK = ["#4aa8e8", "#ff8a3d", "#2fcf9d", "#f07cc0", "#f0c94a", "#9bd8ff", "#a996ff", "#c99a8b", "#ff6b6b", "#9ed36a", "#4fd8de", "#d0b45a"];
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const dark = matchMedia("(prefers-color-scheme: dark)");
let colours = [], codes = new Uint32Array(N), marked = null, focus = -1, drawn = [], tool = "move", outline = null, asked = 0;

function requestDraw() {
  if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw(); });
}
const room = () => (view.width > 700 && el("legend").open ? el("legend").offsetWidth : 0); // [CSS pixels] left to the legend
function fit() {
  view.scale = fitScale();
  view.x = (view.width + room()) / 2;
  view.y = view.height / 2;
  requestDraw();
}
const aspect = (() => {
  let x = 0.05, y = 0.05;
  for (let i = 0; i < N; i++) { x = Math.max(x, Math.abs(XY[2 * i])); y = Math.max(y, Math.abs(XY[2 * i + 1])); }
  return { x, y };
})();
function fitScale() { return 0.46 * Math.max(80, Math.min((view.width - room()) / aspect.x, view.height / aspect.y)); }
function zoomAt(x, y, factor) {
  const base = fitScale(), scale = Math.min(base * 4000, Math.max(base * 0.5, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  requestDraw();
}
function goTo(i) { // moves the image into view, if it is outside
  const x = XY[2 * i] * view.scale + view.x, y = -XY[2 * i + 1] * view.scale + view.y;
  if (x > 20 && y > 20 && x < view.width - 20 && y < view.height - 20) return;
  view.x += view.width / 2 - x;
  view.y += view.height / 2 - y;
}

function colourOf(property) {
  const palette = dark.matches ? DARK : LIGHT;
  if (property.values) {
    const counts = new Uint32Array(property.values.length);
    for (let i = 0; i < N; i++) counts[property.codes[i]]++;
    const order = [...counts.keys()].filter((code) => counts[code]).sort((a, b) => counts[b] - counts[a] || a - b);
    const most = order.length > palette.length ? palette.length - 1 : order.length, place = new Uint32Array(counts.length).fill(most);
    order.slice(0, most).forEach((code, k) => { place[code] = k; });
    const grey = dark.matches ? "#7d8590" : "#8a939d";
    const entries = order.slice(0, most).map((code, k) => ({ text: property.values[code], count: counts[code], colour: palette[k], has: (i) => property.codes[i] === code }));
    const rest = order.slice(most).reduce((sum, code) => sum + counts[code], 0);
    if (rest) entries.push({ text: countText(order.length - most, "other"), count: rest, colour: grey, has: (i) => place[property.codes[i]] === most });
    return { colours: [...palette.slice(0, most), grey], codes: property.codes.map((code) => place[code]), entries };
  }
  const scaled = property.unit === "bytes" ? property.numbers.map((v) => Math.log(Math.max(v, 1))) : property.numbers;
  let low = Infinity, high = -Infinity;
  for (const v of scaled) { low = Math.min(low, v); high = Math.max(high, v); }
  const steps = 32, ramp = Array.from({ length: steps }, (_, k) => rampColour(k / (steps - 1)));
  const levels = new Uint32Array(N);
  for (let i = 0; i < N; i++) levels[i] = high > low ? Math.round(((scaled[i] - low) / (high - low)) * (steps - 1)) : 0;
  const back = (v) => (property.unit === "bytes" ? sizeText(Math.exp(v)) : dateText(v));
  return { colours: ramp, codes: levels, ramp, low: N ? back(low) : "", high: N ? back(high) : "" };
}
function rampColour(t) {
  const at = Math.min(t * 4, 3.999), k = Math.floor(at), f = at - k;
  return "rgb(" + RAMP[k].map((c, d) => Math.round(c + (RAMP[k + 1][d] - c) * f)).join(",") + ")";
}

function draw() {
  const { width, height, scale, ratio } = view;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const visible = [];
  for (let i = 0; i < N; i++) {
    const x = XY[2 * i] * scale + view.x, y = -XY[2 * i + 1] * scale + view.y;
    SX[i] = x;
    SY[i] = y;
    if (x > -40 && y > -40 && x < width + 40 && y < height + 40) visible.push(i);
  }
  const zoom = scale / fitScale();
  drawDots(visible, Math.min(5, (N > 5000 ? 1.7 : N > 1000 ? 2.3 : 3) * Math.sqrt(Math.sqrt(Math.max(zoom, 1)))));
  drawn = [];
  if (hasPictures && el("pictures").checked && (visible.length <= 1500 || zoom >= 5)) drawTiles(visible, Math.min(data.side, 64, 26 + 9 * Math.log2(Math.max(zoom, 1))));
  drawOutline();
}
function drawDots(visible, radius) {
  const dots = colours.map((colour) => dotOf(colour, radius)), step = Math.ceil(visible.length / MOST_DOTS), side = 2 * radius + 2;
  for (const pass of marked ? [false, true] : [true]) {
    context.globalAlpha = pass ? 0.85 : 0.16;
    for (let k = 0; k < visible.length; k += step) {
      const i = visible[k];
      if (!marked || marked.has(i) === pass) context.drawImage(dots[codes[i]], SX[i] - side / 2, SY[i] - side / 2, side, side);
    }
  }
  context.globalAlpha = 1;
}
function dotOf(colour, radius) {
  const dot = document.createElement("canvas"), side = (2 * radius + 2) * view.ratio;
  dot.width = dot.height = Math.ceil(side);
  const pen = dot.getContext("2d");
  pen.fillStyle = colour;
  pen.arc(side / 2, side / 2, radius * view.ratio, 0, 7);
  pen.fill();
  return dot;
}
function drawTiles(visible, side) { // no two overlap; earlier ones and marked ones first, so that the choice is stable
  const cells = new Map(), half = side / 2, gap = side + 4;
  const free = (x, y) => {
    const cx = Math.floor(x / gap), cy = Math.floor(y / gap);
    for (let a = cx - 1; a <= cx + 1; a++) for (let b = cy - 1; b <= cy + 1; b++) {
      const other = cells.get(a * 65536 + b);
      if (other !== undefined && Math.abs(SX[other] - x) < gap && Math.abs(SY[other] - y) < gap) return false;
    }
    return true;
  };
  const first = focus >= 0 ? [focus] : [];
  const order = marked ? [...first, ...visible.filter((i) => marked.has(i)), ...visible.filter((i) => !marked.has(i))] : [...first, ...visible];
  for (const i of order) {
    if (drawn.length >= MOST_TILES) break;
    const x = SX[i], y = SY[i];
    if (x < -half || y < -half || x > view.width + half || y > view.height + half || !free(x, y)) continue;
    cells.set(Math.floor(x / gap) * 65536 + Math.floor(y / gap), i);
    context.globalAlpha = !marked || marked.has(i) || i === focus ? 1 : 0.25;
    context.fillStyle = colours[codes[i]];
    context.fillRect(x - half - 1.5, y - half - 1.5, side + 3, side + 3);
    drawThumbnail(context, i, x - half, y - half, side, requestDraw);
    drawn.push(i);
  }
  context.globalAlpha = 1;
  drawn.side = side;
}
function drawOutline() {
  const ink = getComputedStyle(document.body).color;
  if (focus >= 0) {
    const r = drawn.includes(focus) ? drawn.side / 2 + 4 : 9;
    context.strokeStyle = ink;
    context.lineWidth = 2.5;
    context.strokeRect(SX[focus] - r, SY[focus] - r, 2 * r, 2 * r);
  }
  if (outline && outline.length > 1) {
    context.beginPath();
    outline.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.globalAlpha = 0.12;
    context.fillStyle = ink;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.stroke();
    context.setLineDash([]);
  }
}

function imageAt(x, y) { // the thumbnail under the pointer, or the nearest dot within 12 pixels
  const half = (drawn.side || 0) / 2 + 2;
  for (const i of drawn) if (Math.abs(SX[i] - x) <= half && Math.abs(SY[i] - y) <= half) return i;
  let best = -1, least = 144;
  for (let i = 0; i < N; i++) {
    const square = (SX[i] - x) ** 2 + (SY[i] - y) ** 2;
    if (square < least) { least = square; best = i; }
  }
  return best;
}
function imagesInside(polygon) { // even-odd rule
  const inside = [], last = polygon.length - 1;
  for (let i = 0; i < N; i++) {
    let odd = false;
    for (let a = 0, b = last; a <= last; b = a++) {
      const [xa, ya] = polygon[a], [xb, yb] = polygon[b];
      if (ya > SY[i] !== yb > SY[i] && SX[i] < ((xb - xa) * (SY[i] - ya)) / (yb - ya) + xa) odd = !odd;
    }
    if (odd) inside.push(i);
  }
  return inside;
}
