"""Samplers against one another over many seeds, on a stand-in for scenes_ratio that answers at once.

    python -m tests.benchmarks.samplers_surrogate [--trials 24] [--seeds 12] [--runs runs]

A Gaussian process is fitted to every trial of scenes_ratio under --runs that was really carried out; where a point was
measured, the measurement is the answer. Trials are drawn, refused and repeated by the sweep's own rules. Prints the
hypervolume after equal numbers of trials, and the largest there is. `tests/benchmarks/samplers.py` does it for real.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from compress.study_record import STUDY
from compress.sweep import Sweep, load_sweep
from compress.sweep.outcome import hypervolume
from compress.sweep.sampling import SAMPLERS, kind_for_next, sampler, seed_of
from recipes.sweeps.scenes_ratio import AT_MOST_M, CRITERIA

CHOICES: dict[str, tuple[Any, ...]] = {
    "width_middle": (64, 128),
    "width_lowest": (64, 128, 192, 256),
    "transformer_layers_lowest": (1, 2),
    "ff_mult": (2, 3, 4),
    "criterion": CRITERIA,
}
MAX_DRAWS = 600  # of one study


def features(params: dict[str, Any]) -> list[float]:
    """A point as numbers: widths in steps of the lattice, one column a criterion."""
    chosen = [float(params["criterion"] == name) for name in CRITERIA]
    widths = [params["width_middle"] / 64, params["width_lowest"] / 64]
    return [*widths, params["transformer_layers_lowest"], params["ff_mult"], *chosen]


class StandIn:
    """Velocity error and parameters (M) of any point of the space."""

    def __init__(self, sweep: Sweep, runs: Path) -> None:
        self.sweep = sweep
        self.measured: dict[str, float] = {}
        for record in sorted(runs.rglob(f"sweeps/{sweep.name}/{STUDY}")):
            for trial in json.loads(record.read_text())["trials"]:
                if trial["state"] == "complete":
                    self.measured[json.dumps(trial["params"], sort_keys=True)] = trial["values"][0]
        x_nf = np.array([features(json.loads(key)) for key in self.measured])
        kernel = ConstantKernel(1.0) * RBF(np.ones(x_nf.shape[1])) + WhiteKernel(1e-3)
        self._fitted = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
        self._fitted.fit(x_nf, np.log(list(self.measured.values())))
        self._limit = sweep.constraints[0]
        self._answer = cache(self._work_out)

    def values(self, params: dict[str, Any]) -> tuple[float, float]:
        """Both objectives."""
        return self._answer(json.dumps(params, sort_keys=True))

    def _work_out(self, key: str) -> tuple[float, float]:
        params = json.loads(key)
        size = self._limit.value(self.sweep.sample(optuna.trial.FixedTrial(params)))
        error = self.measured.get(key)
        return (float(np.exp(self._fitted.predict([features(params)])[0])) if error is None else error), size


def covered(stand_in: StandIn, kind: str, seed: int, trials: int) -> float:
    """Hypervolume of one study."""
    sweep = replace(stand_in.sweep, sampler=kind)
    study, done = optuna.create_study(directions=["minimize", "minimize"]), set()
    for number in range(MAX_DRAWS):
        study.sampler = sampler(seed_of(seed, number), kind_for_next(sweep, study.trials))
        trial = study.ask()
        sweep.sample(trial)
        error, size = stand_in.values(trial.params)
        trial.set_constraint(sweep.constraints[0].label, (size - AT_MOST_M) / AT_MOST_M)
        key = tuple(trial.params.values())
        if size > AT_MOST_M or key in done:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        done.add(key)
        study.tell(trial, (error, size))
        if len(done) == trials:
            break
    return hypervolume(study.trials, sweep) or 0.0


def best_possible(stand_in: StandIn) -> float:
    """Hypervolume of all points together."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    for values in itertools.product(*CHOICES.values()):
        error, size = stand_in.values(dict(zip(CHOICES, values, strict=True)))
        if size <= AT_MOST_M:
            study.add_trial(optuna.trial.create_trial(values=[error, size]))
    return hypervolume(study.trials, stand_in.sweep) or 0.0


def main() -> None:
    """Prints a row a sampler."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stand_in = StandIn(load_sweep("scenes_ratio"), options.runs)
    print(f"{len(stand_in.measured)} points measured; all points together cover {best_possible(stand_in):.4f}")
    print("| sampler | mean | deviation | least | most |\n|---|---|---|---|---|")
    for kind in options.samplers:
        found = [covered(stand_in, kind, seed, options.trials) for seed in range(options.seeds)]
        cells = np.mean(found), np.std(found, ddof=1), min(found), max(found)
        print(f"| {kind} | {' | '.join(f'{cell:.4f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
