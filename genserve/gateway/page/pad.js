// A pad of few pixels: draw, erase, mark what shall be filled, bring a picture. Its value is JSON:
// {picture, mask, width, height}, the first two PNGs as data URLs; mask is "" where nothing is marked.
const [canvas, cover] = element.querySelectorAll("canvas");
const board = element.querySelector(".board");
const place = element.querySelector(".place");
const note = element.querySelector(".note");
const paint = canvas.getContext("2d", { willReadFrequently: true });
const marks = cover.getContext("2d", { willReadFrequently: true });
const STROKE = 0.085, MARK = 0.13; // of the width
let at = null, keys = null, own = "";

const STROKES = { // in parts of the width and height
  seven: [[[0.27, 0.24], [0.73, 0.24], [0.6, 0.48], [0.46, 0.78]]],
  three: [[[0.3, 0.26], [0.5, 0.2], [0.67, 0.3], [0.62, 0.43], [0.46, 0.48], [0.64, 0.54], [0.7, 0.68], [0.52, 0.8],
    [0.3, 0.74]]],
  scribble: [[[0.2, 0.3], [0.8, 0.2], [0.25, 0.5], [0.8, 0.45], [0.2, 0.75], [0.75, 0.8], [0.5, 0.15]]],
  nothing: [],
};

const tool = () => element.querySelector("input[type=radio]:checked").value;
function marked() {
  return marks.getImageData(0, 0, cover.width, cover.height).data.some((value, k) => k % 4 === 3 && value > 0);
}
function maskOf() { // white stays, black is filled
  const { width, height } = cover;
  const sheet = new OffscreenCanvas(width, height).getContext("2d");
  const data = sheet.createImageData(width, height);
  const source = marks.getImageData(0, 0, width, height).data;
  for (let k = 0; k < source.length; k += 4) {
    data.data.fill(source[k + 3] > 0 ? 0 : 255, k, k + 3);
    data.data[k + 3] = 255;
  }
  const out = document.createElement("canvas");
  out.width = width;
  out.height = height;
  out.getContext("2d").putImageData(data, 0, 0);
  return out.toDataURL("image/png");
}
function tell() {
  own = JSON.stringify({
    picture: canvas.toDataURL("image/png"), mask: marked() ? maskOf() : "",
    width: canvas.width, height: canvas.height,
  });
  props.value = own;
  trigger("change");
}
function blank() {
  paint.fillStyle = "black";
  paint.fillRect(0, 0, canvas.width, canvas.height);
}
function unmark() { marks.clearRect(0, 0, cover.width, cover.height); }
function resize(width, height) {
  if (canvas.width === width && canvas.height === height) return;
  const before = new OffscreenCanvas(canvas.width, canvas.height);
  before.getContext("2d").drawImage(canvas, 0, 0);
  for (const one of [canvas, cover]) { one.width = width; one.height = height; } // which empties them
  blank();
  paint.imageSmoothingQuality = "high";
  paint.drawImage(before, 0, 0, width, height);
}
function line(from, to, kind) {
  if (kind === "mask") { // whole pixels
    const radius = Math.max(1, Math.round(MARK * cover.width / 2));
    const n = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])));
    marks.fillStyle = "rgb(255, 60, 60)";
    for (let k = 0; k <= n; k += 1) {
      const x = from[0] + (to[0] - from[0]) * k / n, y = from[1] + (to[1] - from[1]) * k / n;
      marks.fillRect(Math.round(x) - radius, Math.round(y) - radius, 2 * radius, 2 * radius);
    }
    return;
  }
  paint.strokeStyle = kind === "erase" ? "black" : "white";
  paint.lineWidth = STROKE * canvas.width * (kind === "erase" ? 2 : 1);
  paint.lineCap = paint.lineJoin = "round";
  paint.beginPath();
  paint.moveTo(...from);
  paint.lineTo(to[0] + 0.01, to[1]);
  paint.stroke();
}
function spot(event) {
  const box = board.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
}
board.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  board.focus();
  board.setPointerCapture(event.pointerId);
  at = spot(event);
  line(at, at, tool());
});
board.addEventListener("pointermove", (event) => {
  if (!at) return;
  const next = spot(event);
  line(at, next, tool());
  at = next;
});
for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, () => { if (at) { at = null; tell(); } });
}
board.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step && event.key !== " ") return;
  event.preventDefault();
  keys ||= [canvas.width / 2, canvas.height / 2];
  const last = [...keys];
  if (step) {
    keys[0] = Math.min(canvas.width - 0.5, Math.max(0.5, keys[0] + step[0]));
    keys[1] = Math.min(canvas.height - 0.5, Math.max(0.5, keys[1] + step[1]));
  }
  place.hidden = false;
  place.style.left = `${100 * keys[0] / canvas.width}%`;
  place.style.top = `${100 * keys[1] / canvas.height}%`;
  if (event.key === " " || event.shiftKey) { line(event.key === " " ? keys : last, keys, tool()); tell(); }
  note.textContent = `Row ${Math.round(keys[1])}, column ${Math.round(keys[0])}`;
});
board.addEventListener("blur", () => { place.hidden = true; });
function strokes(name) {
  blank();
  unmark();
  for (const stroke of STROKES[name]) {
    const points = stroke.map(([x, y]) => [x * canvas.width, y * canvas.height]);
    for (let k = 1; k < points.length; k += 1) line(points[k - 1], points[k], "draw");
  }
}
element.addEventListener("click", (event) => {
  const preset = event.target.dataset?.strokes;
  if (event.target.matches(".unmark")) unmark();
  else if (event.target.matches(".lower")) {
    unmark();
    marks.fillStyle = "rgb(255, 60, 60)";
    marks.fillRect(0, Math.ceil(cover.height / 2), cover.width, cover.height);
  } else if (preset) strokes(preset);
  else return;
  tell();
});
element.addEventListener("change", async (event) => {
  if (!event.target.matches("input[type=file]") || !event.target.files.length) return;
  try {
    const picture = await createImageBitmap(event.target.files[0]);
    put(picture, picture.width, picture.height);
    note.textContent = `${event.target.files[0].name}: its middle, at ${canvas.width} by ${canvas.height} pixels`;
    tell();
  } catch {
    note.textContent = "This file is no picture that the browser can read.";
  }
  event.target.value = "";
});
function put(picture, width, height) { // the largest middle part of the right proportions
  blank();
  unmark();
  const scale = Math.min(width / canvas.width, height / canvas.height);
  const [w, h] = [canvas.width * scale, canvas.height * scale];
  paint.imageSmoothingQuality = "high";
  paint.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
}
watch("value", () => {
  if (!props.value || props.value === own) return;
  const value = JSON.parse(props.value);
  resize(value.width, value.height);
  if (!value.picture) return tell();
  const picture = new Image();
  picture.onload = () => { put(picture, picture.width, picture.height); tell(); };
  picture.src = value.picture;
});
strokes("seven");
tell();
