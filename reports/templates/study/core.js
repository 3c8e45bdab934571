// What all figures of a study share: its columns, scales and axes, marks, and one way to explore points by mouse or keys.
const study = JSON.parse(document.getElementById("study").textContent);
const $ = (id) => document.getElementById(id);
const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const objectives = study.objectives.map((o, i) => ({ ...o, values: study.values[i], choices: [] }));
const parameters = study.parameters.map((p, i) => ({ ...p, label: p.name, values: study.params[i] }));
const rows = study.number.map((_, row) => row);
const judged = rows.filter((row) => objectives.every((o) => o.values[row] != null));
const [broken, comparable] = [0, 1].map((kept) => judged.filter((row) => study.feasible[row] === kept));
const fields = [...parameters, ...objectives];
const wish = (o) => (o.maximize ? "higher is better" : "lower is better");
const beats = (o, one, other) => (o.maximize ? one > other : one < other);

function show(value) {
  if (typeof value !== "number") return value ?? "–";
  const size = Math.abs(value), odd = size !== 0 && (size >= 1e6 || size < 1e-4);
  return (odd ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)))).replaceAll("-", "−");
}
// Equal values would hide one another: rows stand apart by up to `room` where a field has few values.
for (const field of fields) field.levels = field.choices.length || Math.max(1, new Set(field.values).size);
const shift = (field, row, room) => (field.levels > 12 ? 0 : (room * (((row * 0.618034) % 1) - 0.5)) / field.levels);

function seconds(s) {
  if (s == null) return "–";
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  const [whole, parts] = s < 3600 ? [Math.round(s), ["min", "s"]] : [Math.round(s / 60), ["h", "min"]];
  return `${Math.floor(whole / 60)} ${parts[0]} ${String(whole % 60).padStart(2, "0")} ${parts[1]}`;
}

function ticks(low, high, count) { // multiples of 1, 2 or 5 times a power of ten, at least `count` of them
  const rough = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([5, 2, 1].find((part) => part * power <= rough) ?? 1), first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// A function from a field's values to pixels from `from` to `to`; `back` turns pixels into values.
function scaleOf(field, from, to, margin = 0.04) {
  const { choices, log } = field, named = choices.length > 0;
  const number = named ? (v) => choices.indexOf(v) : log ? Math.log10 : Number;
  const known = field.values.filter((v) => v != null).map(number), seen = known.length ? known : [0, 1];
  let low = named ? -0.5 : Math.min(...seen), high = named ? choices.length - 0.5 : Math.max(...seen);
  const pad = named ? 0 : (high - low) * margin || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - pad, high + pad];
  const at = (value) => (value == null ? null : from + ((number(value) - low) / (high - low)) * (to - from));
  at.back = (pixels) => {
    const value = low + ((pixels - from) / (to - from)) * (high - low);
    if (named) return choices[Math.max(0, Math.min(choices.length - 1, Math.round(value)))];
    return field.whole ? Math.round(log ? 10 ** value : value) : log ? 10 ** value : value;
  };
  at.ticks = (count) => {
    if (named) return choices;
    const powers = log ? Array.from({ length: 20 }, (_, i) => Math.ceil(low) + i).filter((power) => power <= high) : [];
    if (powers.length > 1) return powers.map((power) => 10 ** power);
    return (log ? ticks(10 ** low, 10 ** high, count) : ticks(low, high, count)).filter((v) => !field.whole || Number.isInteger(v));
  };
  return at;
}

const words = (x, y, content, css = "tick", anchor = "middle") => svg("text", { x, y, class: css, "text-anchor": anchor }, content);
const rule = (x1, y1, x2, y2, css) => svg("line", { x1, y1, x2, y2, class: css });
const path = (d, css) => svg("path", { d, class: css });
const dots = (points, css) => path(points.map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join(""), `dots ${css}`);
const crosses = (points) => path(points.map(([x, y]) => `M${(x - 3).toFixed(1)} ${(y - 3).toFixed(1)}l6 6m-6 0l6-6`).join(""), "crosses");
const canvas = (width, height, label) => svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": label });
function axes(x, y, [left, top, right, bottom], [across, up] = [4, 4]) {
  const parts = svg("g", { "aria-hidden": "true" });
  for (const v of y.ticks(up)) parts.append(rule(left, y(v), right, y(v), "grid"), words(left - 7, y(v) + 3.5, show(v), "tick", "end"));
  for (const v of across ? x.ticks(across) : []) parts.append(words(x(v), bottom + 16, show(v)));
  parts.append(rule(left, bottom, right, bottom, "axis"));
  return parts;
}

const within = (drawing, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
function hideTip() { $("tip").hidden = true; }
function showTip(near, row) {
  const tip = $("tip"), place = near.getBoundingClientRect();
  tip.replaceChildren(...summaryOf(row));
  tip.hidden = false;
  const left = place.right + 12 + tip.offsetWidth > innerWidth ? place.left - 12 - tip.offsetWidth : place.right + 12;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, Math.min(place.top - 20, innerHeight - tip.offsetHeight - 8))}px`;
}

// Points as {x, y, row, best}: the nearest answers the pointer; one focusable ring walks over them by the arrow keys,
// left and right to the next, up and down to the next of the best.
const marks = (chosen, place, best = (row) => study.front[row] === 1) =>
  chosen.map((row) => ({ x: place(row)[0], y: place(row)[1], row, best: best(row) }));
function explore(drawing, points, what) {
  if (!points.length) return;
  points.sort((a, b) => a.x - b.x || a.y - b.y);
  const cursor = svg("g", { class: "cursor unprinted", tabindex: 0, role: "button" }, svg("circle", { r: 8 }));
  let at = Math.max(0, points.findIndex((point) => point.best));
  const go = (index) => {
    at = (index + points.length) % points.length;
    cursor.setAttribute("transform", `translate(${points[at].x} ${points[at].y})`);
    cursor.setAttribute("aria-label", `${what}: ${sentenceOf(points[at].row)} Enter opens it.`);
  };
  const tell = (index) => { go(index); showTip(cursor, points[at].row); $("said").textContent = sentenceOf(points[at].row); };
  const walk = (step) => {
    let index = at;
    do index = (index + step + points.length) % points.length; while (!points[index].best && index !== at);
    return index;
  };
  const near = (event) => {
    const spot = within(drawing, event);
    const far = (point) => Math.hypot(point.x - spot.x, point.y - spot.y) - (point.best ? 4 : 0);
    const index = points.reduce((best, point, i) => (far(point) < far(points[best]) ? i : best), 0);
    return far(points[index]) < 18 ? index : -1;
  };
  const leave = () => { cursor.classList.remove("shown"); hideTip(); };
  drawing.addEventListener("pointermove", (event) => {
    const index = near(event);
    if (index < 0) return leave();
    go(index);
    cursor.classList.add("shown");
    showTip(cursor, points[at].row);
  });
  drawing.addEventListener("pointerleave", leave);
  drawing.addEventListener("click", (event) => { const index = near(event); if (index >= 0) openTrial(points[index].row); });
  cursor.addEventListener("keydown", (event) => {
    const targets = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: walk(1), ArrowUp: walk(-1), Home: 0, End: points.length - 1 };
    if (event.key === "Escape") return hideTip();
    if (event.key in targets) tell(targets[event.key]);
    else if (event.key === "Enter" || event.key === " ") openTrial(points[at].row);
    else return;
    event.preventDefault();
  });
  cursor.addEventListener("focus", () => tell(at));
  cursor.addEventListener("blur", leave);
  go(at);
  drawing.append(cursor);
}
