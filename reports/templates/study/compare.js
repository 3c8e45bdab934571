// A comparison's figures and tables as files; the page is complete without them.
const figure = document.getElementById("scores-figure");
if (figure) offerFigure(figure, "scores", () => shown(document.querySelector("table[data-csv='scores']")));
offerNamed();
