// The trials over any two objectives: those that nothing beats in these two, the line they draw, and all others.
function drawFront() {
  const across = objectives[$("across").value], up = objectives[$("up").value], [left, top, right, bottom] = [70, 30, 1088, 410];
  const drawing = canvas(1112, 460, `Trials by ${across.label} and ${up.label}`);
  const x = scaleOf(across, left, right), y = scaleOf(up, bottom, top), place = (row) => [x(across.values[row]), y(up.values[row])];
  const best = pairFront(across, up), fits = new Set(best), rest = comparable.filter((row) => !fits.has(row));
  const elsewhere = rest.filter((row) => study.front[row]).map(place);
  drawing.append(axes(x, y, [left, top, right, bottom], [6, 5]),
    words(left, 14, `${up.label}, ${wish(up)}`, "bar-name", "start"), words(right, 452, `${across.label}, ${wish(across)}`, "bar-name", "end"),
    dots(rest.filter((row) => !study.front[row]).map(place), "pale"), crosses(broken.map(place)),
    dots(elsewhere, "ringed"), dots(elsewhere, "hole"), path(stairs(best.map(place), across.maximize), "line s1"), dots(best.map(place), "best"));
  put("front-figure", drawing);
  explore(drawing, marks(judged, place, (row) => fits.has(row)), "Pareto front");
}

// Rows that no other beats in these two objectives, from the lowest first value to the highest.
function pairFront(...pair) {
  const better = (o, row, other) => beats(o, o.values[row], o.values[other]);
  const beaten = (row, other) => pair.some((o) => better(o, other, row)) && !pair.some((o) => better(o, row, other));
  return comparable.filter((row) => !comparable.some((other) => beaten(row, other))).sort((a, b) => pair[0].values[a] - pair[0].values[b]);
}

// The border of what the points dominate: each holds until the next better one.
const stairs = (points, maximize) => points.map(([x, y], i) => (i === 0 ? `M${x} ${y}` : maximize ? `V${y}H${x}` : `H${x}V${y}`)).join("");

const frontRows = () => [["trial", "state", "feasible", "on_front", ...fields.map((f) => f.label)], ...rows.map((row) =>
  [study.number[row], study.states[study.state[row]], study.feasible[row], study.front[row], ...fields.map((f) => f.values[row])])];
