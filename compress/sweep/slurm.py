"""The same sweep as an array of Slurm jobs, each of them one worker."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_SCRIPT = """\
#!/bin/bash
# {jobs} workers on one study. Add what your cluster asks for: --partition, --account, --time, --mem, --gres=gpu:1.
# The runs have to be on a disk that all nodes share; then a job that is killed or preempted loses nothing.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={name}-%A_%a.log
#SBATCH --cpus-per-task=2
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=INT@60
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
srun {command}
"""


def script(name: str, arguments: Sequence[str], jobs: int) -> str:
    """A batch script for `sbatch`; `arguments` are those of `pocketdiff` for one worker."""
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    command = shlex.join(["pocketdiff", *arguments])
    return _SCRIPT.format(jobs=jobs, name=f"pocketdiff-{safe}", last=jobs - 1, command=command)
