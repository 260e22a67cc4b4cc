// Starts the page: controls, pointer, keys.
function setColour(k) {
  const found = colourOf(PROPERTIES[k]);
  colours = found.colours;
  codes = found.codes;
  el("legend").querySelector("summary").textContent = printable(PROPERTIES[k].name);
  const body = el("legend").querySelector("div");
  if (found.ramp) {
    const bar = make("canvas", { width: found.ramp.length, height: 1, class: "ramp" }), pen = bar.getContext("2d");
    found.ramp.forEach((colour, x) => { pen.fillStyle = colour; pen.fillRect(x, 0, 1, 1); });
    body.replaceChildren(bar, make("p", { class: "ends" }, make("span", { text: found.low }), make("span", { text: found.high })));
  } else {
    body.replaceChildren(...found.entries.map((entry) => {
      const mark = make("i", {});
      mark.style.background = entry.colour;
      const choose = () => select(Array.from({ length: N }, (_, i) => i).filter(entry.has), PROPERTIES[k].name + " " + entry.text);
      return make("button", { type: "button", onclick: choose, title: entry.text }, mark, make("span", { text: entry.text }), make("small", { text: entry.count.toLocaleString("en") }));
    }));
  }
  requestDraw();
}
function setTool(name) {
  tool = name;
  for (const each of ["move", "lasso"]) el(each).setAttribute("aria-pressed", each === name);
  canvas.classList.toggle("lasso", name === "lasso");
}
function resize() {
  const box = canvas.parentElement.getBoundingClientRect(), isFirst = !view.width, fitted = Math.abs(view.scale - fitScale()) < 1e-6;
  Object.assign(view, { width: box.width, height: box.height, ratio: Math.min(devicePixelRatio || 1, 2) });
  canvas.width = Math.round(box.width * view.ratio);
  canvas.height = Math.round(box.height * view.ratio);
  if (isFirst || fitted) fit();
  requestDraw();
}

const pointers = new Map();
let moved = 0, pinch = 0;
const placeOf = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, placeOf(event));
  moved = pointers.size > 1 ? 99 : 0;
  outline = pointers.size === 1 && (tool === "lasso" || event.shiftKey) ? [placeOf(event)] : null;
  pinch = distance();
  el("hover").hidden = true;
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = placeOf(event), before = pointers.get(event.pointerId);
  if (!before) return hover(event, x, y);
  moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
  pointers.set(event.pointerId, [x, y]);
  if (pointers.size > 1) {
    const now = distance(), [a, b] = [...pointers.values()];
    if (pinch) zoomAt((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, now / pinch);
    pinch = now;
    view.x += (x - before[0]) / 2;
    view.y += (y - before[1]) / 2;
  } else if (outline) {
    outline.push([x, y]);
  } else if (moved > 4) {
    view.x += x - before[0];
    view.y += y - before[1];
  }
  requestDraw();
});
function distance() {
  const [a, b] = [...pointers.values()];
  return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
}
canvas.addEventListener("pointerup", (event) => {
  const place = placeOf(event), wasDown = pointers.delete(event.pointerId);
  if (wasDown && moved <= 4) {
    const i = imageAt(...place);
    if (i >= 0) openImage(i);
    else if (marked) { marked = null; closeDetail(); }
  } else if (outline && outline.length > 2) {
    select(imagesInside(outline));
    if (tool === "lasso" && matchMedia("(max-width: 800px)").matches) setTool("move");
  }
  outline = null;
  requestDraw();
});
canvas.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); outline = null; requestDraw(); });
canvas.addEventListener("pointerleave", () => { el("hover").hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(...placeOf(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)));
}, { passive: false });
canvas.addEventListener("dblclick", (event) => zoomAt(...placeOf(event), 2));
canvas.addEventListener("keydown", (event) => {
  const step = 60, keys = {
    ArrowLeft: () => { view.x += step; }, ArrowRight: () => { view.x -= step; }, ArrowUp: () => { view.y += step; },
    ArrowDown: () => { view.y -= step; }, "+": () => zoomAt(view.width / 2, view.height / 2, 1.4),
    "-": () => zoomAt(view.width / 2, view.height / 2, 1 / 1.4), 0: fit, Escape: () => { marked = null; closeDetail(); },
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
  requestDraw();
});
function hover(event, x, y) {
  const i = event.pointerType === "touch" ? -1 : imageAt(x, y), box = el("hover");
  canvas.classList.toggle("over", i >= 0);
  box.hidden = i < 0;
  if (i < 0) return;
  const picture = box.querySelector("canvas");
  picture.hidden = !hasPictures;
  picture.width = picture.height = data.side;
  if (hasPictures) drawThumbnail(picture.getContext("2d"), i, 0, 0, data.side, () => { box.hidden = true; });
  box.querySelector("p").textContent = printable(data.names[i]);
  box.style.left = Math.min(x + 14, view.width - 190) + "px";
  box.style.top = Math.min(y + 14, Math.max(0, view.height - (hasPictures ? 170 : 60))) + "px";
}

async function searchFile(file) {
  if (!file || !data.encodes) return;
  if (file.size > data.most_bytes) {
    el("what").textContent = "This file is larger than the " + sizeText(data.most_bytes) + " allowed.";
    return;
  }
  el("what").textContent = "Encoding the file ...";
  try {
    const answer = await ask("query", file);
    setExamples([], [], [{ id: answer.id, url: URL.createObjectURL(file) }]);
  } catch (error) {
    el("what").textContent = printable(error.message);
  }
}
function start() {
  el("about").textContent = printable([
    countText(N, "image"), data.left_out ? countText(data.left_out, "image") + " could not be read" : "",
    "similar images are near each other (" + data.method + ")", data.note,
  ].filter(Boolean).join(" · "));
  PROPERTIES.forEach((one, k) => el("colour").append(make("option", { value: k, text: one.name })));
  const first = Math.max(0, PROPERTIES.findIndex((one) => one.values));
  el("colour").value = first;
  el("colour").addEventListener("change", () => setColour(Number(el("colour").value)));
  document.querySelector(".tabs").append(...Object.entries(lists).map(([name, list]) => {
    const tab = make("button", { type: "button", role: "tab", text: list.label, onclick: () => showList(name) }, make("span", {}));
    tab.dataset.list = name;
    return tab;
  }));
  el("move").onclick = () => setTool("move");
  el("lasso").onclick = () => setTool("lasso");
  el("in").onclick = () => zoomAt(view.width / 2, view.height / 2, 1.6);
  el("out").onclick = () => zoomAt(view.width / 2, view.height / 2, 1 / 1.6);
  el("fit").onclick = fit;
  el("pictures").onchange = requestDraw;
  el("pictures").closest("label").hidden = !hasPictures;
  el("more").onclick = () => { shown += 4 * PAGE; drawPanel(); };
  let delay = 0;
  el("find").addEventListener("input", () => {
    clearTimeout(delay);
    delay = setTimeout(() => {
      const text = el("find").value.toLowerCase();
      select(text ? [...data.names.keys()].filter((i) => data.names[i].toLowerCase().includes(text)) : [], text && "with " + text);
    }, 150);
  });
  el("drop").hidden = !data.encodes;
  el("file").addEventListener("change", () => searchFile(el("file").files[0]));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); searchFile(event.dataTransfer.files[0]); });
  dark.addEventListener("change", () => setColour(Number(el("colour").value)));
  if (matchMedia("(max-width: 800px)").matches) el("legend").open = false;
  new ResizeObserver(resize).observe(canvas.parentElement);
  setColour(first);
  drawPanel();
}
start();
