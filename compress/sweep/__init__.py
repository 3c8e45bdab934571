"""Optuna around the pipeline: each trial is a run of its own, and shares every stage it can with all other runs.

The study lives in a journal file beside the trials, or in a database. Any number of processes and machines work on it
together; a trial whose worker died is taken over by another, in its own run folder, where it left off.
"""

from compress.sweep.definition import (
    TRIALS,
    Constraint,
    EarlyStop,
    Ladder,
    Objective,
    Sweep,
    folder_of,
    load_sweep,
    overridden,
    trial_folder,
)

__all__ = [
    "TRIALS",
    "Constraint",
    "EarlyStop",
    "Ladder",
    "Objective",
    "Sweep",
    "folder_of",
    "load_sweep",
    "overridden",
    "trial_folder",
]
