"""A study's page in a headless Chromium: no errors, every figure drawn, all of it by keyboard, sound downloads."""

import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from reports.study.comparison import write_comparison
from reports.study.html import write_study
from reports.study.read import read_study
from tests.reports.chromium import BINARY, READY, WATCH, Chromium
from tests.reports.synthetic import make_run
from tests.reports.synthetic_grid import make_grid
from tests.reports.synthetic_study import make_study

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BINARY is None, reason="there is no Chromium on this machine")]
FIGURES = ("front", "parallel", "importance", "slice", "history", "volume", "timeline")
# Contrast of an element's colour with the page, after WCAG 2.2; marks need 3, text 4.5.
CONTRAST = """
(selector, property) => {
  const node = document.querySelector(selector), style = getComputedStyle(node);
  const paper = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const light = (colour, alpha) => {
    paper.globalAlpha = alpha;
    paper.fillStyle = colour;
    paper.fillRect(0, 0, 1, 1);
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [...paper.getImageData(0, 0, 1, 1).data].map((c) => linear(c / 255));
    return 0.05 + 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = light(getComputedStyle(document.body).backgroundColor, 1);
  const mark = light(style[property], Number(style.opacity));
  return Math.max(page, mark) / Math.min(page, mark);
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), trials=120, pictures=3)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def tab(folder, profile):
    """The page, loaded once; each test leaves it without an open trial."""
    with Chromium(profile) as browser:
        browser.open(write_study(folder), READY)
        browser.value(WATCH)
        yield browser


def test_every_figure_is_drawn_without_an_error(tab):
    drawn = tab.value(
        "[...document.querySelectorAll('figure[id$=-figure] .plot > svg')].map((e) => e.closest('figure').id)"
    )
    assert drawn == [f"{name}-figure" for name in FIGURES]
    assert tab.errors == []
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")


def test_the_front_for_two_objectives_is_the_one_worked_out_here(tab, folder):
    study = read_study(folder)
    pairs = {(trial.values[0], -trial.values[2]): trial.number for trial in study.comparable}
    best = {n for p, n in pairs.items() if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    tab.value("up.value = '2'; up.dispatchEvent(new Event('change'))")
    dots = tab.value("document.querySelector('#front-figure .dots.best').getAttribute('d').split('h0').length - 1")
    assert dots == len(best)
    tab.value("up.value = '1'; up.dispatchEvent(new Event('change'))")


def test_arrow_keys_walk_over_the_front_and_enter_opens_a_trial(tab, folder):
    front = [trial.number for trial in read_study(folder).front]
    tab.value("document.querySelector('#front-figure .cursor').focus()")
    heard = []
    for _ in range(3):
        heard.append(int(tab.value(r"said.textContent.match(/Trial (\d+)/)[1]")))
        tab.press("ArrowDown")
    assert len(set(heard)) == 3 and set(heard) <= set(front)
    assert tab.value("document.activeElement.getAttribute('aria-label')").startswith("Pareto front: Trial")
    assert tab.value("getComputedStyle(document.activeElement).opacity") == "1"
    tab.press("Enter")
    assert tab.value(
        "trial.open && location.hash === '#' + trial.querySelector('h2').textContent.replace('Trial ', 'trial-')"
    )
    tab.press("Escape")
    assert tab.value("!trial.open && location.hash === ''")


def test_the_focus_stays_in_the_window_at_either_end(tab):
    for trial, button, back in (("#trial-118", "Next", "← Previous"), ("#trial-1", "Previous", "Next →")):
        tab.value(f"location.hash = '{trial}'; location.reload()")
        tab.wait(f"({READY}) && document.querySelector('dialog').open")
        tab.value(
            f"[...document.querySelectorAll('.turn button')].find((b) => b.textContent.includes('{button}')).focus()"
        )
        tab.press("Enter")
        assert tab.value("document.activeElement.textContent") == back
        tab.press("Enter")
        assert tab.value("document.querySelector('#trial-title').textContent") == f"Trial {trial.split('-')[1]}"
        tab.press("Escape")
    tab.value(WATCH)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_and_text_stand_out_from_the_page(tab, theme):
    tab.value(f"document.documentElement.dataset.theme = '{theme}'")
    marks = ["#front-figure .dots.pale", *(f"#parallel-figure .shade{n}" for n in range(1, 7))]
    found = [tab.value(f"({CONTRAST})('{mark}', 'stroke')") for mark in marks]
    assert min(found) >= 3 and found[1:] == sorted(found[1:])  # the stronger, the better
    tab.value("document.body.append(Object.assign(document.createElement('span'), {className: 'none'}))")
    assert tab.value(f"({CONTRAST})('body > .none', 'color')") >= 4.5
    tab.value("document.querySelector('body > .none').remove(); delete document.documentElement.dataset.theme")


def test_a_thumbnail_s_verdict_is_more_than_a_colour(tab):
    tab.value("document.querySelector('#front-figure .cursor').focus()")
    tab.press(*["ArrowDown"] * 2)
    shown = tab.value(
        "[...document.querySelectorAll('#tip .thumbs span')].map((s) => [s.innerText, s.children[0].alt])"
    )
    assert shown and all((sign == "✓") == alt.endswith(": accepted") for sign, alt in shown)


def test_an_axis_is_limited_by_keys_and_given_back(tab, folder):
    widths = [trial.params["width_middle"] for trial in read_study(folder).comparable]
    kept = "Number(document.getElementById('kept').textContent.split(' ')[0])"
    assert tab.value(kept) == len(widths)
    tab.value("document.querySelectorAll('#parallel-figure .handle')[1].focus()")
    tab.press(*["ArrowDown"] * 20)
    limit = float(tab.value("document.activeElement.getAttribute('aria-valuetext')"))
    assert tab.value(kept) == sum(width <= limit for width in widths) < len(widths)
    tab.value("unbrush.click()")
    assert tab.value(kept) == len(widths)


def test_an_axis_is_limited_by_dragging(tab):
    x, top, height = tab.value(
        "(() => { const axis = document.querySelectorAll('#parallel-figure .axis-group .reach')[7];"
        "axis.scrollIntoView({block: 'center'}); const b = axis.getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y, b.height] })()"
    )
    for kind, share in (("mousePressed", 0.6), ("mouseMoved", 0.8), ("mouseMoved", 0.9), ("mouseReleased", 0.9)):
        tab.ask(
            "Input.dispatchMouseEvent", type=kind, x=x, y=top + share * height, button="left", buttons=1, clickCount=1
        )
    handles = "[...document.querySelectorAll('#parallel-figure .handle')].slice(14, 16)"
    limits = f"{handles}.map((handle) => Number(handle.getAttribute('aria-valuenow')))"
    low, high = tab.value(limits)
    assert (low, high) == (pytest.approx(7, abs=3), pytest.approx(39, abs=3))
    tab.value("unbrush.click()")
    assert tab.value(limits) == [0, 100]


@pytest.mark.parametrize("name", FIGURES)
def test_downloads_hold_what_is_drawn(tab, name):
    button = f"document.querySelector('#{name}-figure button[aria-label$=\"as {{}}\"]').click()"
    tab.value("saved.length = 0;" + button.format("CSV") + ";" + button.format("SVG"))
    csv, svg = tab.value("Promise.all(saved.map((blob) => blob.text()))")
    header, *rows = csv.strip().splitlines()
    assert rows and all(len(row.split(",")) == len(header.split(",")) for row in rows)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    marks = [node.attrib for node in root.iter() if node.tag.endswith(("path", "text"))]
    assert marks and all("class" not in mark and "oklab" not in mark.get("stroke", "") for mark in marks)


def test_values_of_parallel_axes_can_be_read_in_a_download(tab):
    labels = "[...document.querySelectorAll('#parallel-figure .halo')].map((text) => text.getBBox())"
    tab.value("saved.length = 0; document.querySelector('#parallel-figure button[aria-label$=\"as PNG\"]').click()")
    tab.wait("saved.length === 2")
    data = tab.value("saved[1].arrayBuffer().then((b) => Array.from(new Uint8Array(b)))")
    image = Image.open(io.BytesIO(bytes(data))).convert("L")
    boxes = tab.value(f"{labels}.map((b) => [b.x, b.y, b.x + b.width, b.y + b.height])")
    ink = [sum(image.crop([round(3 * edge) for edge in box]).histogram()[:70]) for box in boxes]
    assert len(ink) > 20 and min(ink) > 20  # the halo, painted last, would leave next to nothing of it


def test_a_png_has_three_pixels_for_one(tab):
    tab.value("saved.length = 0; document.querySelector('#front-figure button[aria-label$=\"as PNG\"]').click()")
    tab.wait("saved.length === 2")  # the drawing, then the picture made of it
    data = tab.value("saved[1].arrayBuffer().then((b) => Array.from(new Uint8Array(b)))")
    image = Image.open(io.BytesIO(bytes(data)))
    assert image.size == (3 * 1112, 3 * 460)
    assert image.getpixel((0, 0))[:3] == (255, 255, 255)  # paper, also where the page is dark


def test_another_objective_redraws_what_depends_on_it(tab):
    before = tab.value("document.querySelector('#slice-figure .plot').innerHTML.length")
    tab.value("objective.value = '2'; objective.dispatchEvent(new Event('change'))")
    assert tab.value("document.querySelector('#history-figure .bar-name').textContent") == "edit score"
    assert tab.value("document.querySelector('#slice-figure .plot').innerHTML.length") != before
    assert tab.errors == []


def test_a_link_to_a_trial_opens_it(tab, folder):
    tab.value("location.hash = '#trial-5'; location.reload()")
    tab.wait(f"({READY}) && document.querySelector('dialog').open")
    assert tab.value("document.querySelector('#trial-title').textContent") == "Trial 5"
    assert tab.errors == []


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [{"number": 0, "state": "running", "params": {}}],
        [{"number": 3, "state": "complete", "params": {"x": 0.0}, "values": [1.0]}],
        [{"number": n, "state": "complete", "params": {"x": n}, "values": [5.0]} for n in range(3)],
        [{"number": 0, "state": "complete", "params": {"x": 1}, "values": [1.0], "constraints": [1.0]}],
        [{"number": 0, "state": "pruned", "params": {"x": 1}, "started_utc": "2026-11-20T08:00:00Z", "wall_s": 0.0}],
    ],
    ids=["none", "running", "one", "equal", "infeasible", "instant"],
)
def test_a_study_with_little_to_show_opens_without_an_error(tab, tmp_path, trials):
    parameters = [
        {"name": "x", "kind": "float", "low": 0, "high": 1},
        {"name": "y", "kind": "categorical", "choices": []},
    ]
    raw = {"objectives": [{"label": "error"}], "parameters": parameters, "trials": trials}
    (tmp_path / "study.json").write_text(json.dumps(raw))
    tab.errors.clear()
    tab.open(write_study(tmp_path), READY)
    assert not tab.value("[...document.querySelectorAll('svg')].some((drawing) => drawing.outerHTML.includes('NaN'))")
    assert tab.errors == []


def test_a_comparison_opens_without_an_error(tab, tmp_path):
    runs = [make_run(tmp_path / "a", "first"), make_run(tmp_path / "b", "second", pictures=0)]
    tab.errors.clear()
    tab.open(write_comparison(runs, tmp_path / "out"))
    tab.wait("document.querySelectorAll('.downloads').length === 4")
    tab.value(WATCH + "document.querySelector('#cost .downloads button').click()")
    (csv,) = tab.value("Promise.all(saved.map((blob) => blob.text()))")
    assert csv.splitlines()[0] == "Figure,first,second"
    tab.value("saved.length = 0; document.querySelector('#scores-figure .downloads button').click()")
    (csv,) = tab.value("Promise.all(saved.map((blob) => blob.text()))")
    assert csv.splitlines()[0].startswith("Score,first,second") and len(csv.splitlines()) > 3
    assert tab.errors == []


def test_a_grid_s_page_draws_what_makes_sense_without_an_error(tab, tmp_path):
    page = write_study(make_grid(tmp_path / "grid", ("random", "taylor", "taylor, bk_sdm"), unfinished=1))
    tab.errors.clear()
    tab.open(page, READY)
    drawn = tab.value("[...document.querySelectorAll('.plot > svg')].map((e) => e.closest('figure').id)")
    assert drawn == [f"{name}-figure" for name in ("front", "parallel", "slice")]  # nobody noted times
    assert tab.value("objective.selectedOptions[0].text") == "velocity error, pruned"  # all cost the same
    assert float(tab.value("getComputedStyle(document.querySelector('#settings .control-band')).opacity")) > 0.1
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    assert tab.errors == []
