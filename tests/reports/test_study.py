"""A study's page: what it reads, what it shows, and that it is one file which asks for nothing."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from reports.record import ReportError
from reports.study.findings import box, summary
from reports.study.html import write_study
from reports.study.ladder import agreements
from reports.study.payload import covered, embedded
from reports.study.pictures import spread
from reports.study.read import read_study
from reports.study.tables import front_rows, latex
from tests.reports.outline import Outline
from tests.reports.synthetic_study import make_study, study

BARE = {"objectives": [{"label": "error"}], "parameters": [], "trials": []}
TRIAL = {"number": 0, "state": "complete", "params": {}, "values": [0.5]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small study whose front has pictures."""
    return make_study(tmp_path_factory.mktemp("study"), trials=60, pictures=3)


@pytest.fixture(scope="module")
def page(folder):
    return write_study(folder)


def written(folder: Path, **changes) -> Path:
    (folder / "study.json").write_text(json.dumps(BARE | changes))
    return folder


def data_of(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found.group(1))


def test_the_page_is_one_file_that_asks_for_nothing(page):
    outline = Outline(page.read_text())
    assert outline.open == []
    assert outline.fetched and all(source.startswith("data:image/") for source in outline.fetched)
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.links) <= set(outline.ids)


def test_writing_again_changes_no_byte(folder, page):
    files = ("report.html", "report.md", "front.tex", "trials.csv")
    before = [(folder / name).read_bytes() for name in files]
    write_study(folder)
    assert [(folder / name).read_bytes() for name in files] == before


def test_without_a_script_the_front_and_its_table_are_there(folder, page):
    text = re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.S)
    front = read_study(folder).front
    assert "<svg" in text
    for trial in front:
        assert f'data-trial="{trial.number}"' in text
        assert f"<title>trial {trial.number}:" in text
    hidden = re.findall(r'id="(parallel|timeline|history)-figure"', text.split('<div class="drawn" hidden>')[1])
    assert len(hidden) == 3  # what only a script draws does not show without one


def test_the_script_gets_every_trial_once(folder, page):
    data, read = data_of(page), read_study(folder)
    assert data["number"] == [trial.number for trial in read.trials] == list(range(60))
    assert {n for n, best in zip(data["number"], data["front"], strict=True) if best} == {t.number for t in read.front}
    for index, parameter in enumerate(read.parameters):
        asked = [value is not None for value in data["params"][index]]
        assert asked == [parameter.name in trial.params for trial in read.trials]
    assert data["spent"][0] == [
        [data["stages"].index(s.name), int(s.reused), pytest.approx(s.wall_s)] for s in read.trials[0].stages
    ]
    assert min(second for second in data["start_s"] if second is not None) == 0


def test_thumbnails_are_of_front_trials_with_run_folders(folder, page):
    extra = data_of(page)["extra"]
    pictured = [number for number, row in extra.items() if "pictures" in row]
    assert sorted(map(int, pictured)) == sorted(trial.number for trial in read_study(folder).front[:3])
    row = extra[pictured[0]]
    assert all(picture["src"].startswith("data:image/webp;base64,") for picture in row["pictures"])
    assert [stage["name"] for stage in row["stages"]] == ["prune", "joint"]
    assert row["stages"][1]["edit"] == 0.842


@pytest.mark.slow
def test_a_thousand_trials_stay_small(tmp_path):
    page = write_study(make_study(tmp_path))
    assert page.stat().st_size < 2_000_000  # 8 MB are allowed, with pictures
    assert len(data_of(page)["number"]) == 1000


def test_all_trials_are_in_the_csv_at_full_precision(folder, page):
    rows = list(csv.DictReader(io.StringIO((folder / "trials.csv").read_text())))
    raw = json.loads((folder / "study.json").read_text())["trials"]
    assert [int(row["trial"]) for row in rows] == [trial["number"] for trial in raw]
    for row, trial in zip(rows, raw, strict=True):
        assert row["learning_rate"] == repr(trial["params"]["learning_rate"])
        assert row["velocity error"] == (str(trial["values"][0]) if trial["values"] else "")


def test_the_front_keeps_to_the_constraints(folder):
    read = read_study(folder)
    broken = {trial.number for trial in read.trials if trial.constraints[0] > 0}
    assert broken
    assert not broken & {trial.number for trial in read.front}


def test_the_front_s_table_goes_by_the_first_objective(tmp_path):
    points = {32: (3.0, 1.0), 64: (2.0, 2.0), 96: (2.5, 2.5), 128: (1.0, 3.0)}
    rows = [TRIAL | {"number": n, "params": {"width": w}, "values": points[w]} for n, w in enumerate(points)]
    width = {"name": "width", "kind": "int", "low": 32, "high": 128}
    read = read_study(written(tmp_path, objectives=[{"label": "a"}, {"label": "b"}], parameters=[width], trials=rows))
    header, *best = front_rows(read)
    assert header == ["trial", "a", "b", "width"]
    assert [[row[0], row[3]] for row in best] == [["3", "128"], ["1", "64"], ["0", "32"]]


def test_hypervolume_is_told_for_two_and_three_objectives_only(tmp_path):
    shares = [share for _, share in covered(read_study(make_study(tmp_path, 60)))]
    assert shares == sorted(shares) and 0 < shares[-1] <= 1
    four = study(20) | {"objectives": [{"label": name} for name in "abcd"]}
    four["trials"] = [trial | {"values": [1, 2, 3, trial["number"]]} for trial in four["trials"]]
    four["trials"] = [trial | {"state": "complete", "constraints": []} for trial in four["trials"]]
    assert covered(read_study(written(tmp_path, **four))) == []
    assert "The hypervolume is not shown" in write_study(tmp_path).read_text()


def test_hypervolume_is_measured_up_to_the_worst_that_the_study_names(tmp_path):
    objectives = [{"label": "error", "worst": 5.0}, {"label": "score", "maximize": True, "worst": 0.0}]
    values = [[4.0, 1.0], [1.0, 0.5], [9.0, 2.0]]  # the last is beyond, and yet the best score
    trials = [TRIAL | {"number": number, "values": pair} for number, pair in enumerate(values)]
    read = read_study(written(tmp_path, objectives=objectives, trials=trials))
    # of a box of 4 x 2: 1 x 1, then 4 x 0.5 that share 1 x 0.5
    assert covered(read) == [(0, 0.125), (1, 0.3125), (2, 0.3125)]
    assert box(read) == "error 5.000, score 0"


def test_one_objective_has_a_best_trial_instead_of_a_front(tmp_path):
    trials = [TRIAL | {"number": n, "values": [value]} for n, value in enumerate((3.0, 1.0, 2.0))]
    page = write_study(written(tmp_path, trials=trials))
    assert [trial.number for trial in read_study(tmp_path).front] == [1]
    assert "The best trial" in page.read_text() and 'id="front-figure"' not in page.read_text()


def test_a_study_without_finished_trials_has_a_page(tmp_path):
    trials = [TRIAL | {"state": "running", "values": None}]
    page = write_study(written(tmp_path, trials=trials, objectives=[{"label": "a"}, {"label": "b"}]))
    assert Outline(page.read_text()).open == []
    assert "1 running" in page.read_text()


def test_a_value_that_is_not_finite_is_told(tmp_path):
    path = written(tmp_path, trials=[TRIAL, TRIAL | {"number": 1, "values": [None]}])
    assert [trial.judged for trial in read_study(path).trials] == [True, False]
    assert "1 ended without a finite value." in write_study(path).with_suffix(".md").read_text()


def test_a_constraint_that_is_not_finite_is_broken(tmp_path):
    trials = [TRIAL | {"number": n, "constraints": [-1.0, limit]} for n, limit in enumerate([0.0, None])]
    read = read_study(written(tmp_path, trials=trials))
    assert [trial.feasible for trial in read.trials] == [True, False]
    assert [trial.number for trial in read.front] == [0]


def test_a_damaged_run_folder_costs_its_pictures_only(tmp_path):
    folder = make_study(tmp_path, 60, pictures=2)
    broken = read_study(folder).front[0]
    (folder / broken.folder / "40-joint" / "card.json").write_text("{")
    text = write_study(folder).read_text()
    assert f"Trial {broken.number} has no pictures:" in text
    assert f'"{read_study(folder).front[1].number}":{{"pictures"' in text


@pytest.mark.parametrize("kept_bytes", [0, 100])
def test_a_damaged_picture_costs_itself_only(tmp_path, kept_bytes):
    folder = make_study(tmp_path, 60, pictures=2)
    first = read_study(folder).front[0]
    shown = data_of(write_study(folder))["extra"][str(first.number)]["pictures"]
    samples = folder / first.folder / "40-joint" / "samples"
    names = {row["prompt"]: row["file"] for row in json.loads((samples / "samples.json").read_text())}
    damaged = samples / names[shown[0]["prompt"]]
    damaged.write_bytes(damaged.read_bytes()[:kept_bytes])
    page = write_study(folder)
    assert f"Trial {first.number}: {damaged.name} cannot be read: " in page.read_text()
    assert data_of(page)["extra"][str(first.number)]["pictures"] == shown[1:]


def test_text_from_the_study_is_escaped(tmp_path):
    evil = "</script><script>alert(1)</script>"
    trials = [TRIAL | {"params": {evil: evil}, "worker": evil}]
    parameters = [{"name": evil, "kind": "categorical", "choices": [evil]}]
    page = write_study(written(tmp_path, name=evil, trials=trials, parameters=parameters))
    assert "<script>alert" not in page.read_text()
    assert json.loads(str(embedded({"a": evil}))) == {"a": evil}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": []}, "there are no objectives"),
        ({"objectives": [{}]}, r"objectives\[0\]: label is missing"),
        ({"trials": {}}, "trials is not a list"),
        ({"trials": [TRIAL | {"values": [1, 2]}]}, r"trials\[0\].values has 2 entries for 1 objectives"),
        ({"trials": [TRIAL | {"values": ["low"]}]}, r"trials\[0\].values is 'low', not a finite number"),
        ({"trials": [TRIAL | {"state": "done"}]}, r"trials\[0\].state is 'done', not one of complete"),
        ({"trials": [TRIAL, TRIAL]}, "two trials have the same number"),
        ({"parameters": [{"name": "x", "kind": "float", "low": 0}]}, r"parameters\[0\]: high is missing"),
    ],
)
def test_what_is_wrong_with_a_study_is_named(tmp_path, changes, said):
    with pytest.raises(ReportError, match=said) as error:
        read_study(written(tmp_path, **changes))
    assert "pocketdiff sweep" in str(error.value)


def test_trials_are_spread_over_a_long_front(folder):
    trials = read_study(folder).trials
    chosen = [trial.number for trial in spread(trials, 4)]
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 59, 4)
    assert spread(trials[:2], 4) == list(trials[:2])


def test_a_ladder_s_unselected_trials_are_those_that_the_sweep_let_climb(tmp_path):
    climbed = [{"folder": f"trial-{n}", "rungs": [[float(n)]], "values": [float(n)]} for n in range(6)]
    twin, failed = {"state": "pruned", "values": None}, {"state": "fail", "values": None, "folder": "trial-9"}
    trials = [*climbed[:2], twin, failed, {"state": "waiting", "values": None}, *climbed[2:]]
    trials[0] = climbed[0] | {"constraints": [1.0]}  # known only when it was carried out
    ladder = {"rungs": [[{"label": "proxy", "stage": "a"}]], "factor": 3, "unselected": 4}
    numbered = [TRIAL | trial | {"number": number} for number, trial in enumerate(trials)]
    told = read_study(written(tmp_path, trials=numbered, ladder=ladder, objectives=[{"label": "e", "stage": "b"}]))
    assert [trial.number for trial in told.entered] == [0, 1, 5, 6, 7, 8]
    assert agreements(told)[0].unselected.count == 4
    assert "rested on rungs is drawn in one piece" in write_study(tmp_path).read_text()


def test_latex_escapes_what_it_must():
    text = latex(["a_b", "50 %"], [["x & y", "−1"]])
    assert r"a\_b & 50 \%" in text and r"x \& y & $-$1 \\" in text
    assert text.startswith(r"\begin{tabular}{lr}")


def test_the_head_tells_why_trials_were_not_carried_out(tmp_path):
    above, twin = {"state": "pruned", "values": None, "constraints": [0.5]}, {"state": "pruned", "values": None}
    stopped = twin | {"folder": "trial-3", "reason": "behind others"}
    trials = [TRIAL, above, twin | {"constraints": [-0.1]}, twin, stopped]
    numbered = [TRIAL | trial | {"number": number} for number, trial in enumerate(trials)]
    told = read_study(written(tmp_path, trials=numbered, constraints=[{"label": "size", "at_most": 1.0}]))
    assert summary(told).endswith("Not carried out: 1 for a constraint and 2 as the repeat of another.")
    assert "Not carried out" not in summary(read_study(written(tmp_path, trials=[TRIAL])))
