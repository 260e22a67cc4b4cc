// The panel: lists of images as a grid, their paths as text, one image in detail, and the examples of a search.
const PAGE = matchMedia("(max-width: 800px)").matches ? 36 : 120;
const lists = {
  selected: { label: "Selected", rows: [], empty: "Draw around images with Lasso, click a colour's name, or type a part of a file name." },
  similar: { label: "Similar", rows: [], empty: "Click an image: the images that are most similar to it are listed here." },
  duplicates: { label: "Near-duplicates", rows: data.groups.flat(), empty: "No two images are that similar." },
  outliers: { label: "Outliers", rows: data.outliers, empty: "Too few images." },
};
const inGroup = new Map();
data.groups.forEach((group, g) => group.forEach((i, k) => inGroup.set(i, { similarity: data.group_similarities[g][k], first: k === 0, g })));
lists.duplicates.noteOf = (i) => (inGroup.get(i).first ? "keep" : inGroup.get(i).similarity.toFixed(3));
lists.duplicates.first = (i) => inGroup.get(i).first;
const lonely = new Map(data.outliers.map((i, k) => [i, data.outlier_similarities[k]]));
lists.outliers.noteOf = (i) => lonely.get(i).toFixed(3);
let current = "selected", shown = PAGE, generation = 0;
const examples = { like: [], not: [], uploads: [] };

function showList(name) {
  current = name;
  shown = PAGE;
  marked = lists[name].rows.length ? new Set(lists[name].rows) : null;
  if (marked && name === "similar") examples.like.forEach((i) => marked.add(i));
  drawPanel();
  requestDraw();
}
function select(rows, note) {
  lists.selected.rows = rows;
  lists.selected.note = note;
  showList("selected");
}
function summary() {
  const list = lists[current], count = list.rows.length;
  if (!count) return list.empty;
  if (current === "duplicates") {
    const copies = countText(count - data.groups.length, "near-duplicate");
    return copies + " in " + countText(data.groups.length, "group") + ": similarity to the first of the group, beyond what the images have in common, of at least " + data.threshold;
  }
  if (current === "outliers") return "The images that are least similar to their five nearest, by the mean similarity";
  if (current === "similar") return countText(count, "image") + ", the most similar first, by cosine similarity";
  return countText(count, "image") + (list.note ? ": " + list.note : "");
}
function drawPanel() {
  const list = lists[current];
  el("what").textContent = printable(summary());
  document.querySelectorAll(".tabs button").forEach((tab) => {
    const name = tab.dataset.list, count = lists[name].rows.length;
    tab.setAttribute("aria-selected", name === current);
    tab.querySelector("span").textContent = count ? " " + count.toLocaleString("en") : "";
  });
  el("buttons").replaceChildren(...(list.rows.length ? buttonsOf(list) : []));
  el("tiles").replaceChildren(...list.rows.slice(0, shown).map((i) => tileOf(i, list)));
  el("more").hidden = list.rows.length <= shown;
  drawExamples();
}
function buttonsOf(list) {
  const button = (text, act) => make("button", { type: "button", text, onclick: act });
  const buttons = [
    button("Copy list", () => copyText(listText(rowsOfList(list)))),
    button("Download list", () => download(listText(rowsOfList(list)), "images.txt")),
  ];
  if (current === "duplicates") buttons.push(button("Download what to keep", () => download(listText(kept()), "keep.txt")));
  if (current === "selected") buttons.push(button("Clear", () => select([])));
  return buttons;
}
// Of near-duplicates, the list has the images that may go.
const rowsOfList = (list) => (list.first ? list.rows.filter((i) => !list.first(i)) : list.rows);
function kept() {
  return Array.from({ length: N }, (_, i) => i).filter((i) => !inGroup.has(i) || inGroup.get(i).first);
}
const listText = (rows) => rows.map((i) => pathOf(i).replace(/[\r\n]/g, (c) => (c === "\n" ? "\\n" : "\\r")) + "\n").join("");
function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "away" }); // a page from the disk may not have the clipboard
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  el("what").textContent = "The paths are in the clipboard.";
}

function thumbnailOf(i, side, large) {
  const canvas = make("canvas", { width: data.side, height: data.side, "aria-hidden": "true" });
  const paint = () => {
    if (drawThumbnail(canvas.getContext("2d"), i, 0, 0, data.side, paint)) canvas.classList.add("ready");
  };
  paint();
  if (!data.served) return canvas;
  const picture = make("img", { src: (large ? "image/" : "small/") + i, alt: "", loading: "lazy" });
  return make("span", { class: "stack" }, canvas, picture);
}
function tileOf(i, list) {
  const note = list.noteOf ? list.noteOf(i) : "", name = baseName(i);
  const open = make("button", { type: "button", class: "open", title: pathOf(i), "aria-label": "Similar to " + name, onclick: () => openImage(i) }, thumbnailOf(i));
  const tile = make("div", { class: "tile" + (list.first && list.first(i) ? " first" : "") + (i === focus ? " focus" : "") }, open);
  if (note) tile.append(make("span", { class: "note", text: note }));
  tile.append(make("span", { class: "name", text: name }));
  if (canSearch) tile.append(make("span", { class: "judge" }, judge(i, "like", "+", "More like " + name), judge(i, "not", "−", "Not like " + name)));
  return tile;
}
const judge = (i, kind, text, label) => make("button", { type: "button", class: kind, text, "aria-label": label, title: kind === "like" ? "More like this" : "Not this", onclick: () => addExample(i, kind) });

const canSearch = data.served || el("features").textContent.length > 0;
function openImage(i) {
  focus = i;
  goTo(i);
  drawDetail();
  if (canSearch) setExamples([i], [], []);
  requestDraw();
}
function drawDetail() {
  const detail = el("detail"), i = focus;
  detail.hidden = i < 0;
  if (i < 0) return;
  const facts = make("dl", {}, ...PROPERTIES.map((one) => make("div", {}, make("dt", { text: one.name }), make("dd", { text: valueText(one, i) }))));
  const duplicate = inGroup.has(i) ? make("p", { class: "small", text: countText(data.groups[inGroup.get(i).g].length - 1, "near-duplicate") }) : null;
  detail.replaceChildren(
    make("div", { class: "picture" }, hasPictures ? thumbnailOf(i, 96, true) : null),
    make("div", { class: "about" }, make("p", { class: "path", text: pathOf(i) }), facts, duplicate),
    make("button", { type: "button", class: "close", "aria-label": "Close", text: "×", onclick: closeDetail }),
  );
}
function closeDetail() {
  focus = -1;
  drawDetail();
  requestDraw();
}

function setExamples(like, not, uploads) {
  Object.assign(examples, { like, not, uploads });
  return runSearch();
}
function addExample(i, kind) {
  const other = kind === "like" ? "not" : "like";
  if (kind === "not" && !examples.uploads.length && !examples.like.filter((j) => j !== i).length) {
    el("what").textContent = "First choose an image to search for: click it, or press + on it.";
    return;
  }
  setExamples(
    ...["like", "not"].map((each) => {
      const rows = examples[each].filter((j) => j !== i);
      return each === kind ? [...rows, i] : rows;
    }),
    examples.uploads,
  );
}
async function runSearch() {
  const { like, not, uploads } = examples, mine = ++generation;
  let found = [];
  try {
    if (like.length || uploads.length) found = data.served ? await findByServer(like, not, uploads.map((one) => one.id)) : findSimilar(like, not);
  } catch (error) {
    el("what").textContent = printable(error.message);
    return;
  }
  if (mine !== generation) return; // a newer search has begun
  const scores = new Map(found);
  lists.similar.rows = found.map(([i]) => i);
  lists.similar.noteOf = (i) => scores.get(i).toFixed(3);
  showList("similar");
  el("tiles").scrollTop = 0;
}
function drawExamples() {
  const strip = el("examples"), some = examples.like.length + examples.not.length + examples.uploads.length;
  strip.hidden = current !== "similar" || !some;
  const chip = (i, kind) => make("button", { type: "button", class: "chip " + kind, "aria-label": "Remove the example " + baseName(i), title: "Remove " + baseName(i), onclick: () => {
    setExamples(examples.like.filter((j) => j !== i), examples.not.filter((j) => j !== i), examples.uploads);
  } }, thumbnailOf(i));
  const upload = (one) => make("button", { type: "button", class: "chip like", "aria-label": "Remove the file", title: "Remove", onclick: () => {
    setExamples(examples.like, examples.not, examples.uploads.filter((other) => other !== one));
  } }, make("img", { src: one.url, alt: "" }));
  strip.replaceChildren(
    make("span", { class: "word", text: "Like" }), ...examples.uploads.map(upload), ...examples.like.map((i) => chip(i, "like")),
    ...(examples.not.length ? [make("span", { class: "word", text: "Not" }), ...examples.not.map((i) => chip(i, "not"))] : []),
  );
}
