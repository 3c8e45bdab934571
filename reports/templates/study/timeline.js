// Who worked when: a row a worker, a block a trial, in the colours of the stages it computed.
const FIRST_X = 130, LANE = 34, BLOCK = 22, STRIP = 4; // px
function drawTimeline() {
  const timed = rows.filter((row) => study.start_s[row] != null && study.wall_s[row] != null);
  $("timeline").hidden = !timed.length;
  if (!timed.length) return;
  const spans = timed.map((row) => study.wall_s[row]).sort((a, b) => a - b);
  const end = Math.max(...timed.map((row) => study.start_s[row] + study.wall_s[row]), 1e-6), usual = Math.max(spans[spans.length >> 1], 1e-6);
  const width = Math.round(Math.min(24000, Math.max(1112, FIRST_X + 20 + (13 * end) / usual))), height = 40 + LANE * study.workers.length;
  const x = (s) => FIRST_X + ((width - FIRST_X - 20) * s) / end, drawing = canvas(width, height, "Trials by worker over time");
  const [unit, sign] = end < 600 ? [1, "s"] : end < 36000 ? [60, "min"] : [3600, "h"];
  for (const v of ticks(0, end / unit, Math.round(width / 140)))
    drawing.append(rule(x(v * unit), 18, x(v * unit), height - 6, "grid"), words(x(v * unit), 12, `${show(v)} ${sign}`));
  study.workers.forEach((worker, i) => drawing.append(words(118, 43 + LANE * i, (worker || "worker").slice(0, 18), "bar-name", "end")));
  drawing.append(...blocks(timed, x));
  put("timeline-figure", drawing);
  const key = (css, name) => html("span", {}, html("i", { class: `key ${css}` }), name);
  $("stage-legend").replaceChildren(...study.stages.map((name, i) => key(`c${i % 8}`, name)),
    key("rest", "loading and judging"), key("failed-key", "failed"), key("cut-key", "pruned"));
  const middle = (row) => [x(study.start_s[row] + study.wall_s[row] / 2), 28 + LANE * study.worker[row] + BLOCK / 2];
  explore(drawing, marks(timed, middle), "Timeline");
}

function blocks(timed, x) { // one path a stage and state, for thousands of elements would be slow
  const made = study.stages.map(() => ""), found = study.stages.map(() => ""), whole = { all: "", fail: "", pruned: "" };
  for (const row of timed) {
    const top = 28 + LANE * study.worker[row], from = x(study.start_s[row]), to = Math.max(from + 1.5, x(study.start_s[row] + study.wall_s[row]) - 1);
    const block = (left, right) => `M${left.toFixed(1)} ${top}H${right.toFixed(1)}v${BLOCK}H${left.toFixed(1)}z`;
    const [computed, reused] = [0, 1].map((kind) => study.spent[row].filter((stage) => stage[1] === kind));
    const strip = Math.min(STRIP, (to - from) / 3 / Math.max(1, reused.length));
    whole.all += block(from, to);
    if (study.states[study.state[row]] in whole) whole[study.states[study.state[row]]] += block(from, to);
    reused.forEach(([stage], i) => { found[stage] += block(from + strip * i, from + strip * (i + 1)); });
    let at = from + strip * reused.length;
    const scale = (to - at) / Math.max(study.wall_s[row], computed.reduce((sum, stage) => sum + stage[2], 0), 1e-6);
    for (const [stage, , wall] of computed) made[stage] += block(at, (at += wall * scale));
  }
  const hatch = (i) => svg("pattern", { id: `hatch${i}`, width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("rect", { width: 2, height: 4, class: `c${i % 8}` }));
  return [svg("defs", {}, ...study.stages.map((_, i) => hatch(i))), path(whole.all, "rest"), ...made.map((d, i) => path(d, `c${i % 8}`)),
    ...found.map((d, i) => svg("path", { d, fill: `url(#hatch${i})` })), path(whole.fail, "failed"), path(whole.pruned, "cut")];
}

const timelineRows = () => [["trial", "worker", "start_s", "wall_s", "stage", "action", "stage_wall_s"],
  ...rows.flatMap((row) => study.spent[row].map(([stage, reused, wall]) => [study.number[row], study.workers[study.worker[row]],
    study.start_s[row], study.wall_s[row], study.stages[stage], reused ? "reused" : "run", wall]))];
