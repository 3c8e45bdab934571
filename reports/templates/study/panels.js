// What decides an objective, and how it went over the trials.
const put = (id, drawing) => $(id).querySelector(".plot").replaceChildren(drawing);
const importanceOf = (objective) => Object.entries(study.importance[objective.label] ?? {}).sort((a, b) => b[1] - a[1]);

function drawImportance(objective) {
  const shares = importanceOf(objective);
  $("importance-part").hidden = !shares.length;
  const drawing = canvas(1112, 10 + 28 * shares.length, `Importance of each parameter for ${objective.label}`);
  shares.forEach(([name, share], i) => drawing.append(words(250, 20 + 28 * i, name, "bar-name", "end"),
    svg("rect", { x: 262, y: 10 + 28 * i, width: 700 * share, height: 13, rx: 2, class: "bar good" }),
    words(270 + 700 * share, 21 + 28 * i, `${(100 * share).toFixed(1)} %`, "bar-value", "start")));
  put("importance-figure", drawing);
}

const CELL = { columns: 4, width: 278, height: 206 };
function drawSlices(objective) {
  const drawing = canvas(1112, CELL.height * Math.ceil(parameters.length / CELL.columns), `${objective.label} by each parameter`);
  const points = parameters.flatMap((parameter, i) => {
    const left = CELL.width * (i % CELL.columns) + 48, top = CELL.height * Math.floor(i / CELL.columns) + 26;
    return drawSlice(drawing, parameter, objective, [left, top, left + CELL.width - 66, top + CELL.height - 62]);
  });
  put("slice-figure", drawing);
  explore(drawing, points, "Slices");
}

function drawSlice(drawing, parameter, objective, [left, top, right, bottom]) {
  const room = 0.55 * (right - left), inset = parameter.choices.length ? 0 : Math.abs(shift(parameter, 0, room));
  const x = scaleOf(parameter, left + inset, right - inset), y = scaleOf(objective, bottom, top);
  const place = (row) => [x(parameter.values[row]) + shift(parameter, row, room), y(objective.values[row])];
  const long = parameter.choices.join("").length > 24, known = comparable.filter((row) => parameter.values[row] != null);
  const [best, rest] = [1, 0].map((wanted) => known.filter((row) => study.front[row] === wanted).map(place));
  drawing.append(words(left, top - 11, parameter.label, "bar-name", "start"), axes(x, y, [left, top, right, bottom], [long ? 0 : 3, 3]),
    dots(rest, "pale small"), dots(best, "best small"));
  if (long) drawing.append(...parameter.choices.map((choice, n) => words(x(choice), bottom + 16 + 12 * (n % 2), choice)));
  return marks(known, place);
}

const HALF = [58, 24, 526, 244]; // left, top, right, bottom of a drawing of half the page's width
function half(title, x, y) {
  const drawing = canvas(540, 280, `${title} by trial`);
  drawing.append(axes(x, y, HALF), words(HALF[0], 12, title, "bar-name", "start"), words(HALF[2], 276, "trial", "tick", "end"));
  return drawing;
}
const overTrials = (numbers) => scaleOf({ values: numbers, choices: [], whole: true }, HALF[0], HALF[2], 0.01);

function drawHistory(objective) {
  const x = overTrials(study.number), y = scaleOf(objective, HALF[3], HALF[1]);
  const place = (row) => [x(study.number[row]), y(objective.values[row])], drawing = half(objective.label, x, y);
  const { values } = objective, matched = (row, other) => other < row && !beats(objective, values[row], values[other]);
  const records = comparable.filter((row) => !comparable.some((other) => matched(row, other)));
  const line = records.map(place).map(([a, b], i) => (i ? `H${a}V${b}` : `M${a} ${b}`)).join("") + `H${HALF[2]}`;
  drawing.append(dots(comparable.map(place), "pale small"), crosses(broken.map(place)), path(records.length ? line : "", "line s1"));
  put("history-figure", drawing);
  explore(drawing, marks(judged, place), "History");
}

function drawVolume() {
  if (!$("volume-figure")) return;
  const x = overTrials(study.covered.map(([number]) => number));
  const y = scaleOf({ values: study.covered.map(([, share]) => share), choices: [] }, HALF[3], HALF[1]), drawing = half("share of the box", x, y);
  drawing.append(path(study.covered.map(([n, share], i) => (i ? `H${x(n)}V${y(share)}` : `M${x(n)} ${y(share)}`)).join(""), "line s1"));
  put("volume-figure", drawing);
}

const sliceRows = (objective) => [["parameter", "value", objective.label, "trial"],
  ...parameters.flatMap((p) => comparable.map((row) => [p.label, p.values[row], objective.values[row], study.number[row]]))];
