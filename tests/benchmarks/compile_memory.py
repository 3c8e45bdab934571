"""The HTP compiler's peak memory against what a network holds, and how well that predicts it.

    python -m tests.benchmarks.compile_memory [--full 512 1024]

compiles random students of several widths and sizes (and, with --full, DreamLite's own at those sizes: minutes and up
to 10 GB), prints bytes of weights and activations, measured and predicted peak, the coefficients that fit best without
being negative, and the relative error of each network when it is left out of the fit.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from compress.benchmarks.quantization import PX_A_LATENT, TOKENS, dreamlite_small, inputs, network
from compress.quantization.aimet import Simulation
from compress.quantization.compile_memory import Load, load_of
from compress.quantization.host import IoSpec
from compress.quantization.htp import HtpTarget
from compress.quantization.htp_context import compile_context
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.passes import htp_graph
from compress.quantization.rules import load_rules
from students.presets import dreamlite_full
from students.spec import StudentSpec, with_heads

WIDTHS = ((64, 128, 192), (128, 256, 384), (192, 384, 640))
SIZES_PX = (128, 256, 512)


def written(spec: StudentSpec, px: int, folder: Path) -> Path:
    """The QDQ file of a random network of this spec for pairs of `px`, calibrated on one call."""
    unet = network(spec)
    io_spec = IoSpec.of_unet(dict(unet.config), (px // PX_A_LATENT,) * 2, TOKENS, text_bias=True)
    simulation = Simulation(htp_graph(unet, io_spec), load_rules(75))
    simulation.calibrate(inputs(io_spec, seed=1), batch_size=1, headroom_ratio=1.1)
    write_onnx(simulation.float_graph, simulation.encodings(), folder / "model.onnx")
    return folder / "model.onnx"


def peak(spec: StudentSpec, px: int) -> tuple[Load, float]:
    """What the network holds, and the compiler's peak in GB."""
    with tempfile.TemporaryDirectory() as folder:
        model = written(spec, px, Path(folder))
        load = load_of(model)
        assert load is not None
        return load, compile_context(model, Path(folder), HtpTarget()).peak_rss_gb


def fit(loads: list[Load], peaks_gb: list[float]) -> np.ndarray:
    """Base in GB and bytes a byte of weights and activations; least relative squares, none of them negative."""
    rows = np.array([[1.0, load.weight_bytes / 1e9, load.activation_bytes / 1e9] for load in loads])
    scale = 1 / np.array(peaks_gb)
    return nnls(rows * scale[:, None], np.ones(len(rows)))[0]


def main() -> None:
    """Prints a row a network, then the fit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", type=int, nargs="*", default=[])
    args = parser.parse_args()
    specs = [(with_heads(replace(dreamlite_small(), widths=widths)), px) for widths in WIDTHS for px in SIZES_PX]
    specs += [(dreamlite_full(), px) for px in args.full]
    loads, peaks_gb = [], []
    print("| widths | px | weights MB | activations MB | peak GB | predicted GB |\n|---|---|---|---|---|---|")
    for spec, px in specs:
        load, found_gb = peak(spec, px)
        loads.append(load)
        peaks_gb.append(found_gb)
        cells = (spec.widths, px, f"{load.weight_bytes / 1e6:.0f}", f"{load.activation_bytes / 1e6:.0f}")
        print(f"| {' | '.join(map(str, cells))} | {found_gb:.2f} | {load.peak_gb():.2f} |", flush=True)
    print("base GB, bytes a byte of weights, of activations:", fit(loads, peaks_gb).round(3).tolist())
    for left_out, load in enumerate(loads):
        others = [number for number in range(len(loads)) if number != left_out]
        base, weight, activation = fit([loads[n] for n in others], [peaks_gb[n] for n in others])
        predicted = base + (weight * load.weight_bytes + activation * load.activation_bytes) / 1e9
        spec, px = specs[left_out]
        print(f"left out {spec.widths} at {px} px: {predicted / peaks_gb[left_out] - 1:+.0%}")


if __name__ == "__main__":
    main()
