// Downloads: a figure's data as CSV, its drawing as SVG and PNG, both in the light theme that papers are printed in.
const html = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

function control(text, act, attributes = {}) {
  const node = html("button", { type: "button", ...attributes }, text);
  node.addEventListener("click", act);
  return node;
}

function save(name, blob) {
  const link = html("a", { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const csvOf = (rows) => rows.map((row) => row.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n";
const saveCsv = (name, rows) => save(`${name}.csv`, new Blob([csvOf(rows)], { type: "text/csv" }));

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function plain(colour) { // mixed colours come back as oklab(), which few programs read
  if (!/^(color|lab|lch|oklab|oklch)\(/.test(colour)) return colour;
  pixel.fillStyle = colour;
  pixel.fillRect(0, 0, 1, 1);
  return `rgb(${[...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).join(",")})`;
}

const PRINTED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "paint-order",
  "opacity", "font-size", "font-weight", "font-family", "text-anchor"];
function standalone(drawing) { // the page's styles become attributes, since the file goes without its style sheet
  const root = document.documentElement, theme = root.dataset.theme;
  root.dataset.theme = "light";
  const copy = drawing.cloneNode(true), copies = [...copy.querySelectorAll("*")];
  [...drawing.querySelectorAll("*")].forEach((node, index) => {
    if (node.closest(".unprinted")) return copies[index].remove();
    const style = getComputedStyle(node);
    for (const name of PRINTED) copies[index].setAttribute(name, plain(style.getPropertyValue(name)));
    copies[index].removeAttribute("class");
  });
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(copy);
}

async function savePng(name, drawing) {
  const url = URL.createObjectURL(new Blob([standalone(drawing)], { type: "image/svg+xml" }));
  const image = new Image(), { width, height } = drawing.viewBox.baseVal;
  image.src = url;
  await image.decode();
  const zoom = Math.min(3, 12000 / width), canvas = html("canvas", { width: width * zoom, height: height * zoom });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  canvas.toBlob((blob) => save(`${name}.png`, blob));
}

function downloads(name, actions) {
  const buttons = Object.entries(actions).map(([title, act]) => control(title, act, { "aria-label": `Download ${name} as ${title}` }));
  return html("p", { class: "downloads" }, ...buttons);
}

function offerFigure(figure, name, rows) { // rows() gives what is drawn now; without it only the drawing is offered
  const drawing = () => figure.querySelector("svg");
  figure.append(downloads(name, {
    ...(rows && { CSV: () => saveCsv(name, rows()) }),
    SVG: () => save(`${name}.svg`, new Blob([standalone(drawing())], { type: "image/svg+xml" })),
    PNG: () => savePng(name, drawing()),
  }));
}

const shown = (table) => table.dataset.rows ? JSON.parse(table.dataset.rows)
  : [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.replaceAll("\n", " ")));
function offerNamed() { // tables and figures that the page itself holds and names; rows that it does not show stand in their data
  for (const figure of document.querySelectorAll("figure[data-figure]"))
    offerFigure(figure, figure.dataset.figure, figure.dataset.rows && (() => JSON.parse(figure.dataset.rows)));
  for (const table of document.querySelectorAll("table[data-csv]"))
    (table.closest(".scroll") ?? table).after(downloads(table.dataset.csv, { CSV: () => saveCsv(table.dataset.csv, shown(table)) }));
}
