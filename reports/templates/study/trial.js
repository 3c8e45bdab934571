// One trial in words, in the tip and in its own window: figures, pictures, stages and curve.
const extraOf = (row) => study.extra[study.number[row]] ?? {};
const joined = (parts, sign) => parts.filter(Boolean).join(sign);
const stateOf = (row) => joined([study.states[study.state[row]], !study.feasible[row] && "breaks a constraint",
  study.front[row] && "on the front"], ", ");
const asked = (row) => parameters.filter((p) => p.values[row] != null);
const list = (fields, row) => html("dl", {}, ...fields.map((f) => html("div", {}, html("dt", {}, f.label), html("dd", {}, show(f.values[row])))));

const signOf = (picture) => html("b", { class: picture.ok ? "ok" : "no" }, picture.ok ? "✓" : "✗");

function sentenceOf(row) {
  const figures = [...objectives, ...asked(row)].map((f) => `${f.label} ${show(f.values[row])}`);
  return `Trial ${study.number[row]}, ${stateOf(row)}: ${figures.join(", ")}.`;
}

function summaryOf(row) {
  const pictures = (extraOf(row).pictures ?? []).map((p) => html("span", {},
    html("img", { src: p.src, alt: `${p.prompt}: ${p.ok ? "accepted" : "refused"}`, class: p.ok ? "right" : "wrong" }), signOf(p)));
  const head = html("p", {}, html("b", {}, `Trial ${study.number[row]}`), ` ${stateOf(row)}`);
  return [head, list(objectives, row), list(asked(row), row), ...(pictures.length ? [html("p", { class: "thumbs" }, ...pictures)] : [])];
}

function stagesOf(row) {
  const spent = study.spent[row], figures = Object.fromEntries((extraOf(row).stages ?? []).map((stage) => [stage.name, stage]));
  const known = [...new Set(Object.values(figures).flatMap(Object.keys))].filter((name) => name !== "name");
  const most = Math.max(...spent.map(([, , wall]) => wall), 1e-9);
  const head = ["Stage", "Made", "Time", "", ...known].map((text, i) => html("th", { scope: "col", ...(i > 1 && { class: "num" }) }, text));
  const body = spent.map(([stage, reused, wall]) => html("tr", {},
    html("th", { scope: "row" }, study.stages[stage]),
    html("td", {}, html("span", { class: `badge ${reused ? "reused" : "live"}` }, reused ? "reused" : "computed")),
    html("td", { class: "num" }, seconds(wall)),
    html("td", {}, html("i", { class: `span c${stage % 8}${reused ? " hatched" : ""}`, style: `width:${(120 * wall) / most}px` })),
    ...known.map((name) => html("td", { class: "num" }, show(figures[study.stages[stage]]?.[name])))));
  return html("div", { class: "scroll" }, html("table", { class: "flow" }, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...body)));
}

function curveOf(row) {
  const points = study.curve[row], field = (i) => ({ values: points.map((p) => p[i]), choices: [] });
  const x = scaleOf(field(0), 52, 500), y = scaleOf(field(1), 150, 12), drawing = canvas(520, 180, "Value by step");
  drawing.append(axes(x, y, [52, 12, 500, 150]), path("M" + points.map(([a, b]) => `${x(a)} ${y(b)}`).join("L"), "line s1"));
  const figure = html("figure", {}, html("figcaption", {}, "Value reported on the way, by step"), html("div", { class: "plot" }, drawing));
  offerFigure(figure, `trial-${study.number[row]}-curve`, () => [["step", "value"], ...points]);
  return figure;
}

function openTrial(row) {
  hideTip();
  const box = $("trial"), extra = extraOf(row), part = (title, ...nodes) => [html("h3", {}, title), ...nodes];
  const step = (by) => () => { // at either end the focus goes to the button that leads back
    openTrial(row + by);
    const [back, on] = box.querySelectorAll("button"), [same, other] = by < 0 ? [back, on] : [on, back];
    (same.disabled ? other : same).focus();
  };
  const end = (off) => (off ? { disabled: "" } : {});
  const pictures = (extra.pictures ?? []).map((p) => html("figure", {}, html("img", { src: p.src, alt: p.prompt }),
    html("figcaption", {}, signOf(p), " ", p.prompt, html("small", {}, p.reason))));
  box.replaceChildren(
    html("p", { class: "turn" }, control("← Previous", step(-1), end(row === 0)), control("Next →", step(1), end(row === rows.length - 1)),
      control("Close", () => box.close())),
    html("h2", { id: "trial-title" }, `Trial ${study.number[row]}`),
    html("p", { class: "muted" }, joined([stateOf(row), seconds(study.wall_s[row]), study.workers[study.worker[row]], study.folder[row]], " · ")),
    ...(study.reason[study.number[row]] ? [html("p", {}, study.reason[study.number[row]])] : []),
    html("div", { class: "halves" }, ...Object.entries({ Objectives: objectives, Parameters: asked(row) })
      .map(([title, shown]) => html("div", {}, ...part(title, list(shown, row))))),
    ...(pictures.length ? part("Pictures", html("div", { class: "shots" }, ...pictures)) : []),
    ...(study.spent[row].length ? part("Stages", stagesOf(row)) : []),
    ...(study.curve[row].length > 1 ? [curveOf(row)] : []),
    ...(extra.page ? [html("p", {}, html("a", { href: extra.page }, "The report of its run"))] : []));
  if (!box.open) box.showModal();
  history.replaceState(null, "", `#trial-${study.number[row]}`);
}
