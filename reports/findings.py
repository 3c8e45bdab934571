"""What a run found, as small tables that both the page and the Markdown show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reports import words
from reports.collect import Run
from reports.layers import by_block
from reports.record import HEADLINES, Kept, Record, Score

_TOLD_ELSEWHERE = ("parameters_m", "macs_g", "size_mb", "task_", "part_", "untouched_psnr_db", *HEADLINES)
_HELPERS = {"vae", "text"}  # stages whose network is not the denoiser
MOST_LOST = {"quantize": 0.02, "qat": 0.02, "deploy": 0.01}  # of the overall score, against the stage before


@dataclass(frozen=True)
class Tile:
    """One figure of the page's head: its name, its value, and what it is to be compared with."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class TaskRow:
    """One task's score in every column's stage."""

    kind: str
    task: str
    scores: tuple[Score | None, ...]


@dataclass(frozen=True)
class Parity:
    """Score of the float student, then of each form on grids up to the deployed one, with the loss that is allowed."""

    record: Record
    overall: Score
    lost: float | None
    allowed: float | None

    @property
    def passed(self) -> bool | None:
        """Whether no more was lost than allowed; None where there is nothing to compare with."""
        return None if self.lost is None or self.allowed is None else self.lost <= self.allowed

    @property
    def samples(self) -> str:
        """How many pictures the score, or its difference from the row above, rests on."""
        if paired := self.record.metrics.get("emulated_pictures_count"):
            return f"{paired:g} emulated, paired"
        each_kind = self.record.metrics.get("scored_images")
        counted = 2 * each_kind if each_kind else self.overall.count
        return words.number(counted) if counted else words.NO_FIGURE


@dataclass(frozen=True)
class Link:
    """A stage's place in the chain of hashes. `sound`: each parent within the run has the content the card names."""

    record: Record
    parents: tuple[tuple[str, str], ...]  # (name, content hash)
    sound: bool | None


def tiles(run: Run) -> list[Tile]:
    """The page's headline figures; those the cards do not tell are left out."""
    found = [_shrunk(run, "parameters_m", "Parameters", " M"), _shrunk(run, "macs_g", "MACs a step", " G")]
    found += [_final_score(run, "t2i", "Generation"), _final_score(run, "edit", "Editing")]
    stepped = [record for record in run.chain if record.steps]
    if stepped:
        first, last = stepped[0], stepped[-1]
        found.append(Tile("Sampling steps", str(last.steps), f"{first.label} {first.steps}"))
    deployed = run.stage("deploy")
    if deployed and "binary_mb" in deployed.metrics:
        found.append(Tile("On the device", f"{words.number(deployed.metrics['binary_mb'])} MB", "HTP context binary"))
    live = sum(record.wall_s for record in run.stages if record.live)
    reused = sum(record.wall_s for record in run.stages if not record.live)
    note = f"{words.duration(reused)} reused" if reused else "nothing reused"
    found.append(Tile("Time live", words.duration(live), note))
    return [tile for tile in found if tile]


def _shrunk(run: Run, metric: str, name: str, unit: str) -> Tile | None:
    denoisers = [record for record in run.chain if record.stage not in _HELPERS]
    known = [record for record in denoisers if getattr(record, metric) is not None]
    if not known:
        return None
    first, last = getattr(known[0], metric), getattr(known[-1], metric)
    note = f"{100 * last / first:.0f} % of {known[0].label}’s {words.number(first)}{unit}" if len(known) > 1 else ""
    return Tile(name, words.number(last) + unit, note)


def _final_score(run: Run, headline: str, name: str) -> Tile | None:
    known = [record for record in run.chain if headline in record.scores]
    if not known:
        return None
    first, last = known[0], known[-1]
    note = f"{first.label} {words.score(first.scores[headline].value)}" if len(known) > 1 else last.label
    return Tile(name, words.score(last.scores[headline].value), note)


def summary(run: Run) -> str:
    """One or two sentences: which stages were computed here, and which came from finished artefacts."""
    live = [record for record in run.stages if record.live]
    reused = [record for record in run.stages if not record.live]
    sentences = []
    if live:
        sentences.append(f"Computed in this run: {_listed(live)}, in {_total(live)}.")
    if reused:
        sentences.append(f"Reused from finished artefacts: {_listed(reused)}, which took {_total(reused)} to make.")
    return " ".join(sentences)


def _listed(records: Sequence[Record]) -> str:
    names = [record.label for record in records]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _total(records: Sequence[Record]) -> str:
    return words.duration(sum(record.wall_s for record in records))


def task_table(chain: Sequence[Record]) -> tuple[list[Record], list[TaskRow]]:
    """(columns, rows): every task's score in every stage that was scored by task; generation first."""
    columns = [record for record in chain if record.tasks]
    tasks = list(dict.fromkeys(task for record in columns for task in record.tasks))
    tasks.sort(key=lambda task: task[0] != "t2i")
    return columns, [TaskRow(*task, tuple(record.tasks.get(task) for record in columns)) for task in tasks]


def kept_by_block(run: Run) -> dict[str, list[tuple[str, Kept]]]:
    """Block -> [(layer group, what is left of it)] in the network's order, from the prune stage."""
    pruned = run.stage("prune")
    return by_block(pruned.kept if pruned else {})


def parity(run: Run) -> list[Parity]:
    """Float student, quantized, trained on its grids, deployed: what each step cost in overall score."""
    scored = [record for record in run.stages if "overall" in record.scores and not record.scores["overall"].rough]
    rows: list[Parity] = []
    for before, record in zip([None, *scored], scored, strict=False):
        if record.stage not in MOST_LOST:
            continue
        if before is not None and not rows:
            rows.append(Parity(before, before.scores["overall"], None, None))
        overall = record.scores["overall"]
        lost = before.scores["overall"].value - overall.value if before else None
        rows.append(Parity(record, overall, lost, MOST_LOST[record.stage]))
    return rows


def sqnr(run: Run) -> dict[str, float]:
    """Every SQNR in dB that the stages on grids measured, the last where several did.

    Stage qat changes the network between two measurements, so that in its run they are told apart by their stage.
    """
    told = [
        (record, name, value)
        for record in _device_stages(run)
        for name, value in record.metrics.items()
        if "sqnr" in name
    ]
    if run.stage("qat") is None:
        return {name: value for _, name, value in told}
    counts = Counter(name for _, name, _ in told)
    apart = {name for record, name, _ in told if counts[name] > 1 or record.stage == "qat"}
    return {f"{record.stage}_{name}" if name in apart else name: value for record, name, value in told}


def device_facts(run: Run) -> list[tuple[Record, list[tuple[str, str]]]]:
    """Per stage, (name, value) of what else was measured there: float ops, residency, sizes, times."""
    found = []
    for record in _device_stages(run):
        rest = {n: v for n, v in record.metrics.items() if not n.startswith(_TOLD_ELSEWHERE) and "sqnr" not in n}
        if rest:
            found.append((record, [(words.heading(name), words.quantity(name, value)) for name, value in rest.items()]))
    return found


def _device_stages(run: Run) -> list[Record]:
    return [record for record in map(run.stage, MOST_LOST) if record]


def links(run: Run) -> list[Link]:
    """The chain of content hashes, each checked against what the stage's card says of its parents."""
    made = {record.key: record.content_hash for record in run.chain}
    found = []
    for record in run.chain:
        parents = tuple((parent.get("name", ""), parent.get("content_hash", "")) for parent in record.parents)
        here = [parent for parent in record.parents if parent.get("key") in made]
        sound = all(made[parent["key"]] == parent.get("content_hash") for parent in here) if here else None
        found.append(Link(record, parents, sound))
    return found


def versions(chain: Sequence[Record]) -> list[tuple[str, dict[str, list[str]]]]:
    """(package, {version: stages made with it}); one entry means that all stages agree."""
    found: dict[str, dict[str, list[str]]] = {}
    for record in chain:
        for package, version in record.versions.items():
            found.setdefault(package, {}).setdefault(version, []).append(record.label)
    return sorted(found.items())
