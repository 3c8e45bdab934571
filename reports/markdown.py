"""The report as Markdown tables: the same figures as the page, for a terminal, a diff or a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports import findings, plots, words
from reports.collect import Absent, Run
from reports.record import HEADLINES, Record


def render_markdown(run: Run) -> str:
    """The whole report as text, ending in a newline."""
    parts = [f"# {run.name}", run.description, findings.summary(run), "## Flow", _flow(run)]
    columns, rows = findings.task_table(run.chain)
    if rows:
        header = ["task", *(record.label for record in columns)]
        body = [[f"{row.kind} {row.task}", *(words.score(s.value if s else None) for s in row.scores)] for row in rows]
        parts += ["## Scores by task", table(header, body)]
    parts += _pruning(run) + _device(run)
    parts += ["## Provenance", _provenance(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _flow(run: Run) -> str:
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


def _pruning(run: Run) -> list[str]:
    blocks = findings.kept_by_block(run)
    if not blocks:
        return []
    rows = [
        [f"{block}.{layer}", str(kept.kept), str(kept.units), words.score(kept.score_share)]
        for block, layers in blocks.items()
        for layer, kept in layers
    ]
    return ["## Widths kept", table(["layer group", "kept", "of", "share of importance"], rows)]


def _device(run: Run) -> list[str]:
    rows = [[words.heading(name), f"{value:.1f} dB"] for name, value in findings.sqnr(run).items()]
    for record, facts in findings.device_facts(run):
        rows += [[f"{record.label}: {name}", value] for name, value in facts]
    rows += [
        [f"{row.record.label}: change of overall score (at most −{row.allowed})", words.signed(-row.lost)]
        for row in findings.parity(run)
        if row.lost is not None
    ]
    return ["## Quantization and the device", table(["measure", "value"], rows)] if rows else []


def _provenance(run: Run) -> str:
    header = ["stage", "content", "parent's content", "commit", "peak memory, GB", "machine", "reused from"]
    rows = []
    for link in findings.links(run):
        record = link.record
        parents = ", ".join(words.short(digest) for _, digest in link.parents) or words.NO_FIGURE
        figures = [words.short(record.git_commit), words.number(record.peak_rss_gb), words.machine(record.machine)]
        rows.append([record.label, words.short(record.content_hash), parents, *figures, record.reused_from or ""])
    return table(header, rows)
