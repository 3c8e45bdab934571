// Two conveniences; the page is complete without them.
const root = document.documentElement;
const button = document.getElementById("theme");
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
name();

const filter = document.getElementById("filter");
if (filter) {
  filter.hidden = false;
  filter.addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const row of document.querySelectorAll("#grid tbody tr")) {
      const shown = wanted === "all" || row.dataset.kind === wanted || (wanted === "contested" && "contested" in row.dataset);
      row.hidden = !shown;
    }
  });
}

// A link to a stage opens its card.
const reveal = () => document.querySelector(`${location.hash || "#none"} > details`)?.setAttribute("open", "");
addEventListener("hashchange", reveal);
reveal();
