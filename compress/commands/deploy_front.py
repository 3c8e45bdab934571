"""`pocketdiff deploy-front STUDY`: the best trials of a sweep, each on to its HTP binary, and one table of them."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.commands.report import told, write_study
from compress.commands.sweep import heed_requests_to_stop, table_of
from compress.errors import UserError
from compress.overrides import overridable
from compress.progress import make_console, make_progress
from compress.study_record import STUDY
from compress.sweep import Sweep, folder_of, load_sweep, overridden
from compress.sweep.storage import answering

if TYPE_CHECKING:
    from compress.sweep.deploy import Work
    from compress.sweep.deployed import Row
    from compress.sweep.trial import Setting


def main(options: argparse.Namespace) -> int:
    """Deploys what is not deployed yet, writes index and pages, and prints the table, or one line of JSON."""
    from compress.sweep.deploy import deploy, failures, works_of
    from compress.sweep.trial import Setting

    if options.top is not None and options.top < 1:
        raise UserError.of(f"top is {options.top}", "--top", "Give 1 or more, or leave it out for the whole front.")
    if options.workers < 1:
        raise UserError.of(f"workers is {options.workers}", "--workers", "Give 1 or more.")
    name, runs = whereabouts(options.study, Path(options.runs))
    sweep, rest = split_overrides(load_sweep(name), options.overrides)
    began_s, folder = time.monotonic(), folder_of(sweep, runs)
    heed_requests_to_stop()
    setting = Setting(sweep, folder, runs, options.device, make_progress(), options.artefacts)
    with answering(options.storage):
        works = works_of(setting, options.storage, options.top, rest)
        if options.workers > 1:
            rows = side_by_side(setting, works, options)
        else:
            rows = deploy(setting, works, options.top)
    if options.of_team:
        return 0
    if options.json:
        print(json.dumps(outcome(rows, time.monotonic() - began_s)))
    else:
        tell(folder, rows)
    if failed := failures(rows, folder):
        raise failed
    return 0


def side_by_side(setting: Setting, works: Sequence[Work], options: argparse.Namespace) -> list[Row]:
    """Lets several processes of the same command do it; returns the rows of the index that they wrote."""
    from compress.sweep.deployed import INDEX, WAITING, DeployedIndex, read_rows
    from compress.sweep.team import Team

    path = setting.folder / INDEX
    DeployedIndex(setting.folder, setting.sweep, options.top).write([work.row for work in works])

    def ended() -> int:
        return sum(row.state != WAITING for row in read_rows(path))

    team = Team(arguments_of(options), options.workers, setting.folder / "logs", ended)
    team.run(len(works), f"{setting.sweep.name} to the phone", setting.progress)
    return read_rows(path)


def arguments_of(options: argparse.Namespace) -> list[str]:
    """The same command for one worker of a team."""
    flags = {name: getattr(options, name) for name in ("top", "storage", "runs", "artefacts", "device")}
    given = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    return ["deploy-front", options.study, *given, "--of-team", *options.overrides]


def whereabouts(study: str, runs: Path) -> tuple[str, Path]:
    """The name of a sweep and the folder of all runs, where the study was given as its folder."""
    given = Path(study)
    if not (given / STUDY).is_file():
        return study, runs
    return given.resolve().name, given.resolve().parents[1]


def split_overrides(sweep: Sweep, arguments: Sequence[str]) -> tuple[Sweep, list[str]]:
    """The sweep with those overrides that change its trials, as for `pocketdiff sweep`, and those of later stages."""
    from compress.sweep.space import probe

    own = {field.partition(".")[0] for field in overridable(probe(sweep))}
    parts: dict[bool, list[str]] = {True: [], False: []}
    mine = True
    for word in arguments:
        if word.startswith("--"):
            mine = word.removeprefix("--").partition("=")[0].partition(".")[0] in own
        parts[mine].append(word)
    return overridden(sweep, parts[True]), parts[False]


def outcome(rows: Sequence[Row], wall_s: float) -> dict[str, Any]:
    """Trials by state, and how the stages behind their own came about; `wall_s` of this command."""
    stages = Counter("run" if stage["action"] == "run" else "reused" for row in rows for stage in row.stages)
    return {
        "trials": dict(sorted(Counter(row.state for row in rows).items())),
        "stages_run": stages["run"],
        "stages_reused": stages["reused"],
        "wall_s": round(wall_s, 2),
    }


def tell(folder: Path, rows: Sequence[Row]) -> None:
    """Prints the table, and writes the page of every run and of the study."""
    from reports.html import write_report
    from reports.study.deployed import deployed_rows, read_deployed

    with told("the reports cannot be written", folder):
        for row in rows:
            if row.stages:
                write_report(folder / row.folder)
        index = read_deployed(folder)
        assert index is not None, "it was written just now"
        make_console().print(table_of(deployed_rows(index)))
    write_study(folder)
