"""How many calibration trajectories are enough: agreement of simulation and float over their number.

    python -m tests.benchmarks.calibration_curve --student students/weights/scenes_full/70-distill --seeds 3

calibrates and rounds on 1 to 32 generations and as many edits, drawn anew for every seed, and prints SQNR in dB on
trajectories that none of them has seen: mean and range over the seeds, by rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from compress.quantization.aimet import Simulation
from compress.quantization.host import HostDenoiser
from compress.quantization.parity import answers, sqnr_db
from compress.quantization.passes import htp_graph
from compress.quantization.rounding import round_layers
from compress.quantization.rules import load_rules
from compress.quantization.runtime import float_unet
from compress.stages.quantize import io_spec, record
from students.system import DiffusionSystem

COUNTS = (1, 2, 4, 8, 16, 32)
MEASURED, MEASURED_SEED, SEED = 8, 77_001, 88_000  # no stage draws from these


def main() -> None:
    """Prints a row a number of trajectories."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--student", type=Path, default=Path("students/weights/scenes_full/70-distill"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    system = DiffusionSystem.load(args.student)
    spec = io_spec(system)
    unseen = record(system, spec, MEASURED, MEASURED, 0, MEASURED_SEED)[0].inputs
    expected = answers({"float": float_unet(system.unet, spec)}, unseen)["float"]
    graph = htp_graph(system.unet, spec)  # type: ignore[arg-type]
    print("| generations and edits | calls | nearest dB | range | compensated dB | range |\n|---|---|---|---|---|---|")
    for count in COUNTS:
        found: dict[str, list[float]] = {"nearest": [], "compensated": []}
        for seed in range(args.seeds):
            calls = record(system, spec, count, count, 0, SEED + seed)[0].inputs
            simulation = Simulation(graph, load_rules(75))
            simulation.calibrate(calls, headroom_ratio=1.1)
            simulated = {"aimet": HostDenoiser(spec, simulation)}
            found["nearest"].append(sqnr_db(expected, answers(simulated, unseen)["aimet"]))
            round_layers(simulation, calls)
            found["compensated"].append(sqnr_db(expected, answers(simulated, unseen)["aimet"]))
            graph = htp_graph(system.unet, spec)  # type: ignore[arg-type]  # rounding has changed the last one
        cells = [f"{fmean(values):.1f} | {max(values) - min(values):.1f}" for values in found.values()]
        print(f"| {count} + {count} | {len(calls)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
