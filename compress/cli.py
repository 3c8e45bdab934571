"""`pocketdiff`: names and paths in, one function call out. Heavy libraries load inside the subcommands.

Exit codes: 0 done, 2 a mistake that the message says how to mend, 130 interrupted (the same command continues).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from compress.errors import UserError, disk_error

USER_ERROR, INTERRUPTED = 2, 130
# Our own progress tells what happens; the libraries' bars and advice to developers would drown it.
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
_SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "random")
_ARTEFACTS = "a store of artefacts that machines share, any folder that fsspec knows, such as s3://BUCKET/artefacts"
_RUNTIMES = ("torch", "simulation", "onnx", "htp")
_STREAMED = ("magnitude", "random", "activation", "taylor", "fisher", "diff_pruning", "obs_diff")
_STREAMED_RULES = ("weights", "bk_sdm", "koala", "laptop")
_CHIPS = ("8gen2", "8gen3", "8elite", "8elite_gen5")
_MODULES = {"eval": "evaluate", "sweep-server": "sweep_server", "deploy-front": "deploy_front"}
_RECIPES = ("run", "sweep", "deploy-front")  # take any field of a recipe as a flag, and go on after Ctrl-C
Command = Callable[..., argparse.ArgumentParser]


def build_parser() -> argparse.ArgumentParser:
    """Every subcommand with its flags. Hyperparameters are not flags: they are fields of a recipe."""
    parser = argparse.ArgumentParser(
        prog="pocketdiff",
        description="Turn a text-to-image diffusion U-Net into a small one that generates and edits on a phone.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False)

    _add_run(command)
    recipes = command("recipes", "List the recipes, or show every field of one.")
    recipes.add_argument("recipe", nargs="?", help="show this recipe's stages, fields and expectations")
    command("doctor", "Check this machine: packages, processor, GPU, HTP compiler, disk.")
    _add_eval(command)
    _add_generate(command)
    report = command("report", "Write the page of a run or a study again, or compare runs, from their files alone.")
    report.add_argument("run", nargs="+", help="run folder, a sweep's folder, or several run folders to compare")
    report.add_argument("--out", metavar="FOLDER", help="where a comparison goes (default: beside the first run)")
    publish = "also put its cards, tables and pictures into the repository (reports/published, README.md)"
    report.add_argument("--publish", action="store_true", help=publish)
    _add_sweep(command)
    _add_plan(command)
    _add_sensitivity(command)
    _add_nncf(command)
    _add_bench(command)
    return parser


def _add_run(command: Command) -> None:
    epilog = "Any field of a recipe can be changed: --joint.steps 100 (see `pocketdiff recipes RECIPE` for the fields)."
    run = command("run", "Run a recipe; what exists already is not made again.", epilog)
    run.add_argument("recipe", help="name of a recipe, see `pocketdiff recipes`")
    run.add_argument("--out", metavar="FOLDER", help="run folder (default: RUNS/RECIPE)")
    run.add_argument("--runs", metavar="FOLDER", default="runs", help="folder of all runs (default: runs)")
    run.add_argument("--until", metavar="STAGE", help="stop after this stage")
    again = run.add_mutually_exclusive_group()
    again.add_argument("--from", metavar="STAGE", dest="start", help="compute this stage and those after it again")
    again.add_argument("--fresh", action="store_true", help="reuse nothing, not even what the repository ships")
    run.add_argument("--artefacts", metavar="URL", help=_ARTEFACTS)
    run.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    run.add_argument("--dry-run", action="store_true", help="print the plan and its cost; do nothing")


def _add_eval(command: Command) -> None:
    evaluate = command("eval", "Score a checkpoint.")
    evaluate.add_argument("checkpoint", help="artefact folder, for example runs/scenes/40-joint")
    evaluate.add_argument("--suite", choices=("scenes",), default="scenes", help="what to score on (default: scenes)")
    evaluate.add_argument("--n", type=int, default=1000, help="prompts, and as many edits (default: 1000)")
    steps = "of a sampler that takes any number of them (default: what the checkpoint asks for)"
    evaluate.add_argument("--steps", type=int, metavar="N", help=steps)
    evaluate.add_argument("--json", action="store_true", help="print one line of JSON")
    _add_sampling(evaluate)


def _add_generate(command: Command) -> None:
    generate = command("generate", "Make a picture, or edit one.")
    where = "artefact folder, for example runs/scenes/70-distill, or a bundle (with --runtime htp or onnx)"
    generate.add_argument("checkpoint", help=where)
    generate.add_argument("prompt", help='for example "a red circle", or with --image "remove the red circle"')
    generate.add_argument("--image", metavar="PNG", help="the picture to edit")
    generate.add_argument("-n", type=int, default=1, help="how many pictures (default: 1)")
    generate.add_argument("-o", "--output", metavar="PNG", default="out.png", help="where to (default: out.png)")
    _add_sampling(generate)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", choices=_RUNTIMES, default="torch", help="what computes the U-Net")
    parser.add_argument("--seed", type=int, default=0, help="of the starting noise (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def _add_sweep(command: Command) -> None:
    epilog = "The same command on another machine with the same --storage joins in. Fields of recipes as for `run`."
    text = "Search over recipes; each trial is a run that shares what it has in common with others."
    sweep = command("sweep", text, epilog)
    sweep.add_argument("sweep", help="name of a sweep in recipes/sweeps")
    sweep.add_argument("--trials", type=int, help="finished trials wanted in all (default: 20, or all of a grid)")
    sweep.add_argument("--workers", metavar="K", type=int, default=1, help="processes on this machine (default: 1)")
    where = "of the study: journal:///FILE, sqlite:///FILE, postgresql://... or grpc://HOST:PORT (default: a journal)"
    sweep.add_argument("--storage", metavar="URL", help=where)
    sweep.add_argument("--runs", metavar="FOLDER", default="runs", help="folder of all runs (default: runs)")
    sweep.add_argument("--disk-gb", metavar="GB", type=float, help="budget; artefacts of beaten trials go (see gc)")
    sweep.add_argument("--sampler", choices=_SAMPLERS, help="what draws the trials (default: the sweep's own)")
    sweep.add_argument("--seed", type=int, default=0, help="of the sampler (default: 0)")
    sweep.add_argument("--artefacts", metavar="URL", help=_ARTEFACTS)
    sweep.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    sweep.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    sweep.add_argument("--slurm", metavar="N", type=int, help="print a script for an array of N jobs; do nothing")
    sweep.add_argument("--submitit", metavar="N", type=int, help="submit N jobs with submitit, and wait for them")
    settings = "of the jobs, may be repeated: timeout_min=600, slurm_partition=gpu, cluster=local"
    sweep.add_argument("--submitit-set", metavar="KEY=VALUE", action="append", default=[], help=settings)
    sweep.add_argument("--ray", metavar="N", type=int, help="run N workers with Ray Tune, here or on a cluster")
    settings = "of each worker, may be repeated: cpu=2, gpu=1; address=auto is the cluster's"
    sweep.add_argument("--ray-set", metavar="KEY=VALUE", action="append", default=[], help=settings)
    _add_deploy_front(command)
    serve = command("sweep-server", "Stand between a database and very many workers (gRPC).")
    serve.add_argument("storage", help="the database, for example postgresql://USER:PASSWORD@HOST/DATABASE")
    serve.add_argument("--host", default="localhost", help="address to listen on (default: localhost)")
    serve.add_argument("--port", type=int, default=13000, help="(default: 13000)")
    collect = command("gc", "Free the disk of what sweeps made and something beats; says what, until --yes is given.")
    collect.add_argument("--keep-gb", metavar="GB", type=float, required=True, help="what all sweeps may take")
    collect.add_argument("--runs", metavar="FOLDER", default="runs", help="folder of all runs (default: runs)")
    collect.add_argument("--yes", action="store_true", help="remove it")


def _add_deploy_front(command: Command) -> None:
    epilog = "Fields of the stages that follow a trial's own can be changed as for `run`; the same command goes on."
    deploy = command("deploy-front", "Take the best trials of a sweep on to their HTP binaries; one table.", epilog)
    deploy.add_argument("study", help="the sweep, by its name, file or folder (for example runs/sweeps/scenes_ratio)")
    top = "that many best trials, those on the front by their share of its hypervolume (default: the whole front)"
    deploy.add_argument("--top", metavar="K", type=int, help=top)
    deploy.add_argument("--workers", metavar="K", type=int, default=1, help="processes on this machine (default: 1)")
    deploy.add_argument("--of-team", action="store_true", help=argparse.SUPPRESS)  # one of several workers
    deploy.add_argument("--storage", metavar="URL", help="of the study, as for `sweep` (default: its journal)")
    deploy.add_argument("--runs", metavar="FOLDER", default="runs", help="folder of all runs (default: runs)")
    deploy.add_argument("--artefacts", metavar="URL", help=_ARTEFACTS)
    deploy.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    deploy.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")


def _add_plan(command: Command) -> None:
    plan = command("plan", "The student that a budget leaves of a teacher, from the teacher's config.json alone.")
    plan.add_argument("folder", help="diffusers folder with unet/config.json or config.json")
    plan.add_argument("--parameters-m", type=float, metavar="M", help="at most this many million parameters")
    plan.add_argument("--macs-g", type=float, metavar="G", help="at most this many 10^9 MACs a forward on a pair")
    plan.add_argument(
        "--size-mb", type=float, metavar="MB", help="at most this much for 8-bit weights as the HTP pads them"
    )
    plan.add_argument("--latency-ms", type=float, metavar="MS", help="at most this time a forward on a pair, estimated")
    plan.add_argument("--chip", default="8gen3", help="8gen2, 8gen3, 8elite or 8elite_gen5 (default: 8gen3)")
    plan.add_argument("--steps", metavar="A,B", help="operators that are carried out (default: all that prune knows)")
    plan.add_argument(
        "--latent", type=int, metavar="SIDE", help="rows and columns of the latent (default: the config's)"
    )
    plan.add_argument("--tokens", type=int, default=77, help="of text (default: 77)")
    plan.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_sensitivity(command: Command) -> None:
    text = "Measure how far the velocity moves when each group of channels, heads or neurons alone is pruned."
    sensitivity = command("sensitivity", text)
    sensitivity.add_argument("checkpoint", help="artefact folder, for example teachers/weights/scenes")
    ratios = "shares of a group's units to drop, lowest scores first (default: 0.25,0.5,0.75)"
    sensitivity.add_argument("--ratios", metavar="A,B", default="0.25,0.5,0.75", help=ratios)
    criterion = "what scores the units, any of prune.criterion (default: taylor)"
    sensitivity.add_argument("--criterion", metavar="NAME", default="taylor", help=criterion)
    sensitivity.add_argument(
        "--samples", type=int, default=32, help="to score on, and as many to measure (default: 32)"
    )
    keep = "run folder whose report is to show it (default: the one that the checkpoint lies in)"
    sensitivity.add_argument("--run", metavar="FOLDER", help=keep)
    sensitivity.add_argument("--json", action="store_true", help="print one line of JSON")
    sensitivity.add_argument("--seed", type=int, default=0, help="of the samples and their noise (default: 0)")
    sensitivity.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def _add_nncf(command: Command) -> None:
    text = "Quantize the student of a quantize artefact with NNCF, for CPUs and NPUs, and compare with AIMET's."
    nncf = command("nncf", text)
    nncf.add_argument("checkpoint", help="artefact of stage quantize, for example runs/scenes/80-quantize")
    forms = "of int8, int4 (weights alone) and w8a8 (activations too); default: all"
    nncf.add_argument("--forms", metavar="A,B", default="int8,int4,w8a8", help=forms)
    nncf.add_argument("--images", metavar="N", type=int, default=70, help="prompts and edits to score (default: 70)")
    nncf.add_argument("--out", metavar="FOLDER", help="where the ONNX files go (default: nncf/CHECKPOINT in its run)")
    nncf.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_bench(command: Command) -> None:
    bench = command("bench", "Measure time and memory on random weights.")
    subjects = bench.add_subparsers(dest="subject", metavar="SUBJECT", required=True)

    def subject(name: str, text: str) -> argparse.ArgumentParser:
        parser = subjects.add_parser(name, help=text, description=text, allow_abbrev=False)
        parser.add_argument("--json", action="store_true", help="print one line of JSON")
        parser.add_argument("--scale", choices=("full", "small"), default="full", help="of the network (default: full)")
        parser.add_argument("--work", metavar="FOLDER", help="where to put large files (default: the system's choice)")
        return parser

    surgery = subject("surgery", "Prune SDXL's U-Net to DreamLite's, streamed; puts 7 GB on the disk for a while.")
    surgery.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="of weights (default: bf16)")
    surgery.add_argument("--shards", type=int, default=1, help="files the teacher is split into (default: 1)")
    surgery.add_argument(
        "--criterion",
        choices=_STREAMED,
        default="magnitude",
        help="what decides; all but the first two let 8 samples of 512 px through: many minutes (default: magnitude)",
    )
    surgery.add_argument(
        "--layer-rule",
        choices=_STREAMED_RULES,
        help="what decides on whole layers; laptop lets samples through once a layer (default: by the weights)",
    )
    quantize = subject("quantize", "Take DreamLite's U-Net through W8A16 to a context binary of the HTP.")
    quantize.add_argument(
        "--px",
        type=int,
        nargs="+",
        default=[512],
        help="side of the picture in pixels; several share their weights in one binary (default: 512)",
    )
    quantize.add_argument("--soc", choices=_CHIPS, default="8gen3", help="Snapdragon to compile for (default: 8gen3)")
    quantize.add_argument("--emulate", action="store_true", help="also run one forward on the emulator: minutes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = build_parser()
    options, overrides = parser.parse_known_args(arguments)
    if overrides and options.command not in _RECIPES:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    options.overrides = overrides
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        module = importlib.import_module(f"compress.commands.{_MODULES.get(options.command, options.command)}")
        return int(module.main(options) or 0)
    except UserError as error:
        return complain(error)
    except KeyboardInterrupt:
        again = "; the same command continues" if options.command in _RECIPES else ""
        print(f"\nStopped{again}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stderr.close()
        return 0
    except Exception as error:
        full = disk_error(error)
        if full is None:
            raise
        return complain(full)


def complain(error: UserError) -> int:
    """Prints every problem, one a line, and returns the exit code for mistakes."""
    if len(error.problems) > 1:
        print(f"error: {len(error.problems)} problems", file=sys.stderr)
    for problem in error.problems:
        print(f"{'  - ' if len(error.problems) > 1 else 'error: '}{problem}", file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
