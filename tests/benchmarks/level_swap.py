"""Which noise levels lose a student's T2I score: its teacher takes its place between two levels of the sampler.

    python -m tests.benchmarks.level_swap runs/scenes_full/44-joint_4 [--images 300] [--ranges 0-0.5 0.5-0.85 0.85-1]

Prints one line of JSON: the score of the student, of the teacher, and of the student with the teacher in each range.
Where a swap gives the teacher's score is where training has to look; standard errors are about 0.5 / sqrt(images).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from compress.evaluation.scenes_bench import generator_of, judge_generation, t2i_samples
from compress.progress import make_progress
from students.system import DiffusionSystem
from students.unet import velocity_model
from teachers.base import Condition, VelocityModel

SEED = 21


@dataclass(frozen=True)
class Swapped:
    """A `VelocityModel`: the teacher's velocity at levels within [low, high], else the student's."""

    student: VelocityModel
    teacher: VelocityModel
    low: float
    high: float

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """Of one level for the whole batch, as samplers ask."""
        if self.low <= float(sigma_b[0]) <= self.high:
            return self.teacher.velocity(x_bchw, sigma_b, replace(condition, source_bchw=None))
        return self.student.velocity(x_bchw, sigma_b, condition)


def main() -> None:
    """Loads, samples, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path)
    parser.add_argument("--teacher", type=Path, default=Path("teachers/weights/scenes"))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--ranges", nargs="+", default=["0-0.5", "0.5-0.85", "0.85-1"])
    options = parser.parse_args()
    device = torch.device("cpu")
    student = DiffusionSystem.load(options.student, device)
    networks = (
        velocity_model(student.unet.eval()),
        velocity_model(DiffusionSystem.load(options.teacher, device).unet.eval()),
    )
    ranges = {"student": (2.0, 2.0), "teacher": (0.0, 1.0)}
    ranges |= {given: tuple(float(level) for level in given.split("-")) for given in options.ranges}
    samples, progress, scores = t2i_samples(options.images, SEED), make_progress(), {}
    for name, (low, high) in ranges.items():
        progress.start(len(samples), "pictures", name)
        make = generator_of(student, SEED, denoiser=Swapped(*networks, low, high))
        judged = judge_generation(make, samples, progress)
        scores[name] = round(sum(one.verdict.ok for one in judged) / len(judged), 3)
    progress.close()
    print(json.dumps({"images": options.images, **scores}))


if __name__ == "__main__":
    main()
