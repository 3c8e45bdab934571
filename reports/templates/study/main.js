// Puts the page together: the front at once, the rest when the page has been painted.
for (const node of document.querySelectorAll(".drawn")) node.hidden = false;
for (const place of document.querySelectorAll("[data-trial]")) {
  const number = place.dataset.trial, open = () => openTrial(study.number.indexOf(Number(number)));
  place.replaceChildren(control(number, open, { class: "link", "aria-label": `Open trial ${number}` }));
}
const chosen = () => objectives[$("objective").value];
const drawings = Object.entries({ parallel: drawParallel, importance: drawImportance, slice: drawSlices, history: drawHistory })
  .filter(([name]) => $(`${name}-figure`)).map(([, draw]) => draw); // a grid's page leaves some out
const drawAll = () => drawings.forEach((draw) => draw(chosen()));

$("objective").addEventListener("change", () => { $("wish").textContent = wish(chosen()); drawAll(); });
$("unbrush").addEventListener("click", () => { ranges.forEach((_, i) => { ranges[i] = full(); }); redraw(); });
$("all-trials").addEventListener("click", () => saveCsv("trials", frontRows()));
$("trial").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
$("trial").addEventListener("click", (event) => { if (event.target === event.currentTarget) event.currentTarget.close(); });

if ($("front-figure")) {
  for (const name of ["across", "up"]) $(name).addEventListener("change", drawFront);
  drawFront();
}
const FILES = {
  front: frontRows, parallel: parallelRows, slice: () => sliceRows(chosen()), timeline: timelineRows,
  importance: () => [["parameter", "importance"], ...importanceOf(chosen())],
  history: () => [["trial", chosen().label], ...judged.map((row) => [study.number[row], chosen().values[row]])],
  volume: () => [["trial", "hypervolume_share"], ...study.covered],
};
for (const [name, made] of Object.entries(FILES)) if ($(`${name}-figure`)) offerFigure($(`${name}-figure`), name, made);
offerNamed();
$("wish").textContent = wish(chosen());

const later = [...drawings.map((draw) => () => draw(chosen())), drawVolume, drawTimeline];
function next() { // one figure at a time, so that the page answers in between
  if (!later.length) return void (document.documentElement.dataset.ready = "yes");
  later.shift()();
  setTimeout(next);
}
requestAnimationFrame(() => setTimeout(next));
const opening = study.number.indexOf(Number(location.hash.replace("#trial-", "") || NaN));
if (opening >= 0) openTrial(opening);
