"use strict";
// Values under the pointer, or under the arrow keys. Without this script the page is complete but for them.
const charts = JSON.parse(document.getElementById("charts").textContent);
const SVG = "http://www.w3.org/2000/svg";

function add(parent, name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const key of Object.keys(attributes)) node.setAttribute(key, attributes[key]);
  parent.appendChild(node);
}

function nearest(values, x) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (Math.abs(values[i] - x) < Math.abs(values[best] - x)) best = i;
  return best;
}

document.querySelectorAll("figure.chart").forEach((figure, number) => {
  const chart = charts[number], svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor");
  const readout = figure.querySelector(".readout"), atRest = readout.textContent;
  const box = {};
  for (const side of ["left", "right", "top", "bottom"]) box[side] = Number(svg.dataset[side]);
  const across = (v) => box.left + (v - chart.x.low) / (chart.x.high - chart.x.low) * (box.right - box.left);
  const up = (v) => box.bottom + (v - chart.y.low) / (chart.y.high - chart.y.low) * (box.top - box.bottom);
  const longest = chart.series.reduce((a, b) => (b.x[b.x.length - 1] > a.x[a.x.length - 1] ? b : a));
  const unit = chart.unit ? " " + chart.unit : "";
  let at = null;

  function show(x) {
    cursor.textContent = "";
    add(cursor, "line", { x1: across(x), x2: across(x), y1: box.top, y2: box.bottom });
    const parts = [];
    for (const one of chart.series) {
      const i = nearest(one.x, x), y = Math.min(box.bottom, Math.max(box.top, up(one.y[i])));
      add(cursor, "circle", { cx: across(one.x[i]), cy: y, r: 3.5 });
      parts.push((chart.series.length > 1 ? one.run + ": " : "") + one.y[i] + unit + " at " + chart.x_name + " " + one.x[i]);
    }
    readout.textContent = parts.join("\n");
  }

  function rest() {
    cursor.textContent = "";
    readout.textContent = atRest;
    at = null;
  }

  function point(event) {
    const place = svg.getBoundingClientRect();
    const inside = (event.clientX - place.left) / place.width * svg.viewBox.baseVal.width;
    const x = chart.x.low + (inside - box.left) / (box.right - box.left) * (chart.x.high - chart.x.low);
    at = nearest(longest.x, x);
    show(longest.x[at]);
  }

  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") rest(); });
  svg.addEventListener("blur", rest);
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (steps === undefined) return;
    event.preventDefault();
    const last = longest.x.length - 1;
    at = Math.min(last, Math.max(0, at === null ? last : at + steps));
    show(longest.x[at]);
  });
});
