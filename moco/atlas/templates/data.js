"use strict";
// What the page knows: names, places, properties, features, thumbnails. Text from outside is only ever set as
// textContent, with characters that are not printable shown as their codes.
const el = (id) => document.getElementById(id);
const data = JSON.parse(el("atlas").textContent);
const N = data.count;

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
function arrayOf(Kind, text) {
  const bytes = bytesOf(text);
  return new Kind(bytes.buffer, bytes.byteOffset, bytes.byteLength / Kind.BYTES_PER_ELEMENT);
}
const XY = arrayOf(Float32Array, data.xy), PLACES = arrayOf(Uint32Array, data.places);
const ORIGINS = arrayOf(Uint16Array, data.origins);
const PROPERTIES = data.properties.map((one) => one.values
  ? { ...one, codes: arrayOf(Uint32Array, one.codes) }
  : { ...one, numbers: arrayOf(Float64Array, one.numbers) });

const HIDDEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
function printable(text) {
  return String(text).replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") node.textContent = printable(value);
    else if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, printable(value));
  }
  node.append(...children.filter((child) => child));
  return node;
}

function pathOf(i) {
  const origin = ORIGINS.length ? ORIGINS[i] : 0, root = data.roots[origin], name = data.names[i];
  if (root === undefined) return name;
  const rest = name.slice(data.prefixes[origin].length);
  return root.endsWith("/") ? root + rest : root + "/" + rest;
}
const baseName = (i) => data.names[i].slice(data.names[i].lastIndexOf("/") + 1);
function sizeText(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  let k = 0;
  while (bytes >= 1000 && k < 3) { bytes /= 1000; k++; }
  return (k && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[k];
}
const dateText = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
const countText = (count, unit) => count.toLocaleString("en") + " " + unit + (count === 1 ? "" : "s");
function valueText(property, i) {
  if (property.values) return property.values[property.codes[i]];
  return property.unit === "bytes" ? sizeText(property.numbers[i]) : dateText(property.numbers[i]);
}

// Sheets of thumbnails: decoded when they are needed; the least recently used ones are dropped.
const ON_A_SHEET = data.across ** 2, MOST_SHEETS = 24;
const sheets = new Map(), waiting = new Map();
const hasPictures = PLACES.length > 0;
async function sheetBlob(number) {
  if (data.served) return (await fetch("sheet/" + number)).blob();
  return new Blob([bytesOf(el("sheet-" + number).textContent)], { type: "image/webp" });
}
function sheetOf(number, whenLoaded) {
  const known = sheets.get(number);
  if (known) {
    sheets.delete(number);
    sheets.set(number, known);
    return known;
  }
  if (!waiting.has(number)) {
    waiting.set(number, []);
    sheetBlob(number).then(createImageBitmap).then((bitmap) => {
      sheets.set(number, bitmap);
      if (sheets.size > MOST_SHEETS) {
        const [oldest, unused] = sheets.entries().next().value;
        sheets.delete(oldest);
        unused.close();
      }
      const calls = waiting.get(number);
      waiting.delete(number);
      new Set(calls).forEach((call) => call());
    }, () => {}); // it stays in `waiting`: a sheet that cannot be read is not asked for again
  }
  waiting.get(number).push(whenLoaded);
  return null;
}
// Draws the thumbnail of image i; false if its sheet is not there yet, in which case `whenLoaded` is called later.
function drawThumbnail(context, i, x, y, side, whenLoaded) {
  if (!hasPictures) return false;
  const place = PLACES[i], sheet = sheetOf(Math.floor(place / ON_A_SHEET), whenLoaded);
  if (!sheet) return false;
  const within = place % ON_A_SHEET, s = data.side;
  context.drawImage(sheet, (within % data.across) * s, Math.floor(within / data.across) * s, s, s, x, y, side, side);
  return true;
}
