// Search by example: the mean of the liked images' features minus half the mean of the others', as `moco search` does.
const LESS = 0.5, MOST_FOUND = 120;
let unitFeatures = null;
function features() {
  if (unitFeatures || data.served) return unitFeatures;
  const text = el("features").textContent;
  if (!text) return null;
  const bytes = bytesOf(text), small = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length), D = small.length / N;
  const x = new Float32Array(small.length);
  for (let i = 0; i < N; i++) {
    let squares = 0;
    for (let d = i * D; d < (i + 1) * D; d++) squares += small[d] * small[d];
    const scale = squares ? 1 / Math.sqrt(squares) : 0;
    for (let d = i * D; d < (i + 1) * D; d++) x[d] = small[d] * scale;
  }
  unitFeatures = { x, D };
  return unitFeatures;
}
// [[image, cosine similarity], ...], the most similar first, without the examples.
function findSimilar(like, not) {
  const { x, D } = features(), query = new Float32Array(D);
  for (const i of like) for (let d = 0; d < D; d++) query[d] += x[i * D + d] / like.length;
  for (const i of not) for (let d = 0; d < D; d++) query[d] -= (LESS * x[i * D + d]) / not.length;
  let squares = 0;
  for (let d = 0; d < D; d++) squares += query[d] * query[d];
  const scale = squares ? 1 / Math.sqrt(squares) : 0, scores = new Float32Array(N);
  for (let i = 0, at = 0; i < N; i++) {
    let sum = 0;
    for (let d = 0; d < D; d++, at++) sum += query[d] * x[at];
    scores[i] = sum * scale;
  }
  const examples = new Set([...like, ...not]);
  const order = Array.from({ length: N }, (_, i) => i).filter((i) => !examples.has(i));
  order.sort((a, b) => scores[b] - scores[a] || a - b);
  return order.slice(0, MOST_FOUND).map((i) => [i, scores[i]]);
}
async function ask(path, body) {
  const answer = await fetch(path, { method: "POST", body }).catch(() => { throw new Error("The server does not answer. It may have ended."); });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}
// The same by the server, with all dimensions; `uploads` are ids of files that were dropped in.
async function findByServer(like, not, uploads) {
  return (await ask("search", JSON.stringify({ like, not, uploads, k: MOST_FOUND }))).found;
}
