// Parallel coordinates: a line a trial; each axis has two handles that a drag or the arrow keys move.
const full = () => [0, 1];
const ranges = fields.map(full);
const TOP = 46, FOOT = 330, SHADES = 6, SPREAD = 110; // px, and how many colours
let redraw = () => {};
function upright(field) { // rows of equal values stand apart within the axis, not beyond it
  const inset = field.choices.length ? 0 : Math.abs(shift(field, 0, SPREAD));
  return scaleOf(field, FOOT - inset, TOP + inset);
}

function keptRows(scales) { // a trial that was not asked for a parameter is kept as long as that axis is whole
  const inside = (row, i) => {
    const y = scales[i](fields[i].values[row]), share = (FOOT - y) / (FOOT - TOP), [low, high] = ranges[i];
    return y == null ? low === 0 && high === 1 : share >= low - 1e-6 && share <= high + 1e-6;
  };
  return comparable.filter((row) => fields.every((_, i) => inside(row, i)));
}

function drawParallel(objective) {
  const pitch = Math.max(1112 / fields.length, 92), width = pitch * fields.length, at = (i) => pitch * (i + 0.5);
  const drawing = canvas(width, 360, "Parallel coordinates of all comparable trials"), scales = fields.map(upright);
  const ranked = [...comparable].sort((a, b) => (objective.maximize ? 1 : -1) * (objective.values[a] - objective.values[b]));
  const shade = new Map(ranked.map((row, rank) => [row, Math.floor((SHADES * rank) / ranked.length)]));
  const layers = Array.from({ length: SHADES + 1 }, (_, i) => path("", i ? `shade shade${i}` : "shade out"));
  drawing.append(...layers);
  const height = (row, i) => fields[i].values[row] == null ? null : scales[i](fields[i].values[row]) + shift(fields[i], row, SPREAD);
  const trace = (row) => fields.map((_, i) => [at(i), height(row, i)]).map(([x, y], i, all) =>
    y == null ? "" : `${i && all[i - 1][1] != null ? "L" : "M"}${x.toFixed(0)} ${y.toFixed(1)}`).join("");
  const traces = new Map(comparable.map((row) => [row, trace(row)])); // drawn again with every step of a drag
  const bands = fields.map((field, i) => brush(field, i, scales[i], at(i), drawing));
  redraw = () => {
    const kept = keptRows(scales), inside = new Set(kept), texts = layers.map(() => []);
    for (const row of comparable) texts[inside.has(row) ? shade.get(row) + 1 : 0].push(traces.get(row));
    layers.forEach((layer, i) => layer.setAttribute("d", texts[i].join("")));
    bands.forEach((update) => update());
    const few = kept.length > 12 ? [] : kept.map((row) => control(`trial ${study.number[row]}`, () => openTrial(row)));
    $("kept").replaceChildren(`${kept.length} of ${comparable.length} trials are kept. `, ...few);
  };
  redraw();
  $("parallel-figure").querySelector(".plot").replaceChildren(drawing);
}

function brush(field, i, scale, x, drawing) {
  const y = (share) => FOOT - share * (FOOT - TOP), clip = (share) => Math.min(1, Math.max(0, share));
  const group = svg("g", { class: "axis-group" }), band = svg("rect", { x: x - 6, width: 12, class: "band unprinted" });
  const brief = field.label.length > 15 ? field.label.slice(0, 14) + "…" : field.label;
  group.append(svg("g", {}, svg("title", {}, field.label), words(x, 16, brief, "bar-name")), rule(x, TOP, x, FOOT, "axis"),
    ...scale.ticks(4).map((v) => words(x + 6, scale(v) + 3.5, show(v), "tick halo", "start")), band,
    svg("rect", { x: x - 18, y: TOP - 12, width: 36, height: FOOT - TOP + 24, class: "reach unprinted" }));
  const handles = ["lower", "upper"].map((end, side) => {
    const handle = svg("g", { role: "slider", tabindex: 0, class: "handle unprinted", "aria-orientation": "vertical",
      "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `${field.label}, ${end} limit` },
      svg("rect", { x: x - 9, y: side ? -7 : 0, width: 18, height: 7, rx: 2 }));
    handle.addEventListener("keydown", (event) => {
      const fine = field.choices.length ? 1 / field.choices.length : 0.02;
      const moves = { ArrowUp: fine, ArrowRight: fine, ArrowDown: -fine, ArrowLeft: -fine, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      move(side, clip(ranges[i][side] + moves[event.key]));
    });
    return handle;
  });
  const move = (side, share) => { // a handle pushes the other on rather than pass it
    ranges[i][side] = share;
    ranges[i][1 - side] = side ? Math.min(ranges[i][0], share) : Math.max(ranges[i][1], share);
    redraw();
  };
  const shareOf = (event) => clip((FOOT - within(drawing, event).y) / (FOOT - TOP));
  group.addEventListener("pointerdown", (event) => {
    const side = handles.findIndex((handle) => handle.contains(event.target)), start = shareOf(event);
    group.setPointerCapture(event.pointerId);
    let moved = false;
    group.onpointermove = (drag) => {
      const now = shareOf(drag);
      moved ||= Math.abs(now - start) > 0.015;
      if (side >= 0) return move(side, now);
      if (moved) { ranges[i] = [Math.min(start, now), Math.max(start, now)]; redraw(); }
    };
    group.onpointerup = () => {
      group.onpointermove = group.onpointerup = null;
      if (!moved && side < 0) { ranges[i] = full(); redraw(); } // a click gives the whole axis back
    };
  });
  group.append(...handles);
  drawing.append(group);
  return () => {
    const [low, high] = ranges[i];
    band.setAttribute("y", y(high));
    band.setAttribute("height", y(low) - y(high));
    group.classList.toggle("limited", low > 0 || high < 1);
    handles.forEach((handle, side) => {
      handle.setAttribute("transform", `translate(0 ${y(ranges[i][side])})`);
      handle.setAttribute("aria-valuenow", Math.round(100 * ranges[i][side]));
      handle.setAttribute("aria-valuetext", show(scale.back(y(ranges[i][side]))));
    });
  };
}
const parallelRows = () => [["trial", ...fields.map((f) => f.label)],
  ...comparable.map((row) => [study.number[row], ...fields.map((f) => f.values[row])])];
