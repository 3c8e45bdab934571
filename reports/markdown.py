"""The report as Markdown tables: the same figures as the page, for a terminal, a diff or a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports import findings, plots, words
from reports.collect import Absent, Run
from reports.record import HEADLINES, Record
from reports.sensitivity import Sensitivity


def render_markdown(run: Run) -> str:
    """The whole report as text, ending in a newline."""
    parts = [f"# {run.name}", run.description, findings.summary(run), "## Flow", flow_table(run)]
    parts += _tasks(run) + _pruning(run) + _device(run)
    parts += ["## Provenance", _provenance(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is right-aligned. A cell of several lines becomes one."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *(list(row) for row in rows)]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def flow_table(run: Run) -> str:
    """One line a stage: size, compute, scores with intervals, time."""
    header = ["stage", "made", "parameters, M", "MACs, G", "size, MB", *HEADLINES, "steps", "wall time"]
    return table(header, [_flow_row(slot) for slot in run.slots])


def _flow_row(record: Record | Absent) -> list[str]:
    if isinstance(record, Absent):
        return [record.label, record.reason, *[words.NO_FIGURE] * 8]
    made = "given" if not record.number else "live" if record.live else "reused"
    figures = [words.number(value) for value in (record.parameters_m, record.macs_g, record.size_mb)]
    scores = [plots.interval(record.scores[name]) if name in record.scores else words.NO_FIGURE for name in HEADLINES]
    steps = str(record.steps) if record.steps else words.NO_FIGURE
    return [record.label, made, *figures, *scores, steps, words.duration(record.wall_s)]


def _tasks(run: Run) -> list[str]:
    columns, rows = findings.task_table(run.chain)
    if not rows:
        return []
    header = ["task", *(record.label for record in columns)]
    kinds = {"t2i": "generate", "edit": "edit"}
    body = [
        [
            f"{kinds.get(row.kind, row.kind)}: {words.label_of(row.task)}",
            *(words.score(s.value if s else None) for s in row.scores),
        ]
        for row in rows
    ]
    for name in dict.fromkeys(name for record in columns for name in record.parts):
        unit = words.unit_of(name)
        figures = [words.number(record.parts.get(name)) for record in columns]
        body.append([words.label_of(name) + (f", {unit}" if unit else ""), *figures])
    return ["## Scores by task", table(header, body)]


def _pruning(run: Run) -> list[str]:
    pruned, parts = run.stage("prune"), []
    if pruned and pruned.evolution:
        names = list(dict.fromkeys(name for row in pruned.evolution for name in row))
        rows = [[_cell(row.get(name)) for name in names] for row in pruned.evolution]
        parts += ["## Pruning, step by step", table(names, rows)]
    if pruned and pruned.kept:
        rows = [[f"`{g}`", str(k.kept), str(k.units), words.score(k.score_share)] for g, k in pruned.kept.items()]
        parts += ["## Widths kept", table(["layer group", "kept", "of", "share of importance"], rows)]
    return parts + [part for found in run.sensitivities for part in _sensitivity(found)]


def _sensitivity(found: Sensitivity) -> list[str]:
    shares = [f"{100 * ratio:g} % gone" for ratio in found.ratios_units]
    rows = []
    for group in found.groups:
        errors = [group.errors.get(ratio) for ratio in found.ratios_units]
        told = [words.number(error.velocity_mse if error else None) for error in errors]
        rows.append([f"`{group.name}`", str(group.units), *told])
    how = f"Velocity error without the lowest-scored units of one layer group alone: criterion {found.criterion}, "
    how += f"{found.samples} samples, mean square of the velocity {words.number(found.power)}."
    return [f"## Sensitivity of {found.label}", how, table(["layer group", "units", *shares], rows)]


def _cell(value: object) -> str:
    return words.number(value, 4) if isinstance(value, int | float) else str("" if value is None else value)


def _device(run: Run) -> list[str]:
    figures = device_table(run)
    return ["## Quantization and the device", figures] if figures else []


def device_table(run: Run) -> str:
    """Agreement of float, simulation and emulator, and what was compiled; empty where nothing was quantized."""
    rows = [[words.heading(name), f"{value:.1f} dB"] for name, value in findings.sqnr(run).items()]
    for record, facts in findings.device_facts(run):
        rows += [[f"{record.label}: {name}", value] for name, value in facts]
    rows += [
        [f"{row.record.label}: change of overall score (at most −{row.allowed})", words.signed(-row.lost)]
        for row in findings.parity(run)
        if row.lost is not None
    ]
    return table(["measure", "value"], rows) if rows else ""


def _provenance(run: Run) -> str:
    header = ["stage", "content", "parent's content", "commit", "peak memory, GB", "machine", "reused from"]
    rows = []
    for link in findings.links(run):
        record = link.record
        parents = ", ".join(words.short(digest) for _, digest in link.parents) or words.NO_FIGURE
        figures = [words.short(record.git_commit), words.number(record.peak_rss_gb), words.machine(record.machine)]
        rows.append([record.label, words.short(record.content_hash), parents, *figures, record.reused_from or ""])
    return table(header, rows)
