"""Random students from float to the emulator: every one computes in integers and agrees with its simulation, or is
refused with the reason before anything is compiled.

    python -m tests.benchmarks.random_specs --count 10 --seed 0

prints a row a student: what it is, nodes on the HTP, float operators, conversions nobody asked for, emulator against
simulation; or the words of the refusal. Two or three stages, widths off the lattice and several key/value heads are
among what is drawn. Ends with 1 where a student that was not refused fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from compress.benchmarks.quantization import inputs, network
from compress.errors import UserError
from compress.quantization.aimet import Simulation
from compress.quantization.host import IoSpec
from compress.quantization.htp import HtpTarget
from compress.quantization.htp_context import compile_context
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.passes import htp_graph
from compress.quantization.residency import nodes_on_htp_percent, read_residency
from compress.quantization.rules import load_rules
from compress.quantization.runtime import EmulatedUNet
from students.spec import CROSS, NONE, SELF_CROSS, StudentSpec, with_heads

LEAST_DB = 55.0
TOKENS = 32
HEADER = "| widths | layers | blocks | heads, kv | norm groups | separable | nodes % | float | converts | dB |"


def draw(chance: random.Random) -> StudentSpec:
    """A student of two or three stages; about one in four is one that the HTP has no form for."""
    stages = chance.choice((2, 3))
    lattice = (64, 128, 192, 256, 320) if chance.random() < 0.8 else (160, 288)
    kinds = tuple(chance.choice((NONE, CROSS, SELF_CROSS)) for _ in range(stages - 1))
    spec = StudentSpec(
        widths=tuple(sorted(chance.choice(lattice) for _ in range(stages))),
        layers_per_block=tuple(chance.choice((1, 2)) for _ in range(stages)),
        transformer_layers=tuple(chance.choice((1, 2)) for _ in range(stages)),
        heads=(1,) * stages,
        down_attention=(*kinds, SELF_CROSS),
        up_attention=(*kinds, SELF_CROSS),
        cross_dim=chance.choice((32, 64, 96)),
        text_dim=48,
        size_dim=32,
        size_values=2,
        kv_heads=chance.choice((None, 1, 1, 2)),
        ff_mult=chance.choice((1, 2, 3, 4)),
        qk_norm=chance.random() < 0.5,
        separable=chance.random() < 0.5,
        sample_size=8,
        norm_groups=chance.choice((16, 32, 32)),
    )
    return with_heads(spec)


def measured(spec: StudentSpec, side: int, work: Path) -> str:
    """The last four columns; UserError where it is refused."""
    try:
        unet = network(spec)
    except ValueError as error:  # diffusers has no such network
        raise UserError.of(str(error), "spec", "Draw another one.") from None
    io_spec = IoSpec.of_unet(dict(unet.config), (side, side), TOKENS, text_bias=True)
    simulation = Simulation(htp_graph(unet, io_spec), load_rules(75))
    simulation.calibrate(inputs(io_spec, seed=1), batch_size=1, headroom_ratio=1.1)
    write_onnx(simulation.float_graph, simulation.encodings(), work / "model.onnx")
    compiled = compile_context(work / "model.onnx", work, HtpTarget())
    residency = read_residency(compiled.graph_json)
    given = inputs(io_spec, seed=2)
    agreement_db = sqnr_db(simulation(given), EmulatedUNet(compiled.wrapper, io_spec).forward(given))
    on_htp, floats, converts = (
        nodes_on_htp_percent(compiled.wrapper, residency),
        len(residency.float_ops),
        len(residency.unrequested_converts),
    )
    if floats or converts or on_htp < 100 or agreement_db < LEAST_DB:
        raise AssertionError(f"{on_htp:g} % on the HTP, {floats} float, {converts} converts, {agreement_db:.1f} dB")
    return f"{on_htp:g} | {floats} | {converts} | {agreement_db:.1f} |"


def main() -> int:
    """Prints the table; returns how many failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, failed = random.Random(args.seed), 0
    print(f"{HEADER}\n|---|---|---|---|---|---|---|---|---|---|")
    for _ in range(args.count):
        spec, side = draw(chance), chance.choice((8, 16))
        cells = (
            spec.widths,
            spec.layers_per_block,
            spec.transformer_layers,
            f"{spec.heads}, {spec.kv_heads}",
            spec.norm_groups,
            spec.separable,
        )
        with tempfile.TemporaryDirectory() as work:
            try:
                found = measured(spec, side, Path(work))
            except UserError as error:
                (problem, *_) = error.problems
                found = f"refused: {problem.what} ({problem.where}) | | | |"
            except AssertionError as error:
                failed += 1
                found = f"FAILED: {error} | | | |"
        print(f"| {' | '.join(map(str, cells))} | {found}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main()))
