// A comparison's figures and tables as files; the page is complete without them.
const figure = document.getElementById("scores-figure");
if (figure) offerFigure(figure, "scores");
for (const table of document.querySelectorAll("table[data-csv]")) {
  const rows = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.replaceAll("\n", " ")));
  offer(table.closest("section"), table.dataset.csv, { CSV: () => saveCsv(table.dataset.csv, rows()) });
}
