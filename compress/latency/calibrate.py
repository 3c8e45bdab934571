"""Fits the two rates of each chip to public measurements, and tells how wrong the estimates are elsewhere.

    python -m compress.latency.calibrate

The measurements are qai-hub-models' `perf.yaml` of February 2026 (v0.47.0; QAIRT 2.43 context binaries, W8A16, all
operations on the NPU): one forward on Qualcomm's device farm. The U-Nets and text encoders of
Stable Diffusion 1.5 and 2.1 are fitted, at high and at low arithmetic intensity: four points for two rates. The VAE
decoder (activations larger than the chip's memory) and two ConvNeXts (depthwise convolutions) are only predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import exp, log, sqrt

from compress.latency.networks import convnext, text_encoder, unet, vae_decoder
from compress.latency.roofline import CHIPS, Chip, latency_of
from compress.operations import Op

COLUMNS = ("8gen2", "8gen3", "8elite", "8elite_gen5")
MEASURED_MS = {
    "SD 1.5 U-Net": (112.622, 81.089, 60.021, 44.914),
    "SD 2.1 U-Net": (96.498, 69.260, 53.782, 40.053),
    "SD 1.5 text encoder": (3.262, 2.329, 1.754, 1.489),
    "SD 2.1 text encoder": (7.960, 5.782, 4.678, 4.304),
    "SD 2.1 VAE decoder": (265.061, 201.840, 176.401, 127.577),
    "ConvNeXt-Base": (5.941, 4.071, 3.280, 2.509),
    "ConvNeXt-Tiny": (3.123, 2.198, 1.605, 1.283),
}
UNETS = tuple(MEASURED_MS)[:2]
FITTED = tuple(MEASURED_MS)[:4]


@cache
def network(name: str) -> tuple[Op, ...]:
    """The operations of a measured network."""
    return tuple(
        {
            "SD 1.5 U-Net": lambda: unet("1.5"),
            "SD 2.1 U-Net": lambda: unet("2.1"),
            "SD 1.5 text encoder": lambda: text_encoder(12, 768, 12),
            "SD 2.1 text encoder": lambda: text_encoder(23, 1024, 16),
            "SD 2.1 VAE decoder": vae_decoder,
            "ConvNeXt-Base": lambda: convnext((3, 3, 27, 3), (128, 256, 512, 1024)),
            "ConvNeXt-Tiny": lambda: convnext((3, 3, 9, 3), (96, 192, 384, 768)),
        }[name]()
    )


def measured_ms(name: str, chip: str) -> float:
    """The public figure."""
    return MEASURED_MS[name][COLUMNS.index(chip)]


@cache
def fit(chip: str, names: tuple[str, ...] = FITTED) -> Chip:
    """The chip with the rates that make the mean squared log error on these networks least."""
    from scipy.optimize import least_squares

    def rated(logs: Sequence[float]) -> Chip:
        return replace(CHIPS[chip], macs_t=exp(logs[0]), memory_gb=exp(logs[1]))

    def errors(logs: Sequence[float]) -> list[float]:
        return [log(latency_of(network(name), rated(logs)) / measured_ms(name, chip)) for name in names]

    # A roofline has kinks, so derivatives are taken over 0.1 %, and the start is the same for every chip.
    return rated(least_squares(errors, [log(5.0), log(40.0)], diff_step=1e-3).x)


def leave_one_out(chip: str, name: str) -> float:
    """Relative error on a network that the rates have not seen."""
    rates = fit(chip, tuple(other for other in FITTED if other != name))
    return latency_of(network(name), rates) / measured_ms(name, chip) - 1


def root_mean_square(errors: Sequence[float]) -> float:
    """Of relative errors."""
    return sqrt(sum(error * error for error in errors) / len(errors))


def main() -> None:
    """Prints rates, errors and their root mean squares."""
    print(f"{'chip':12} {'TMAC/s':>7} {'GB/s':>6}  error left out: {', '.join(MEASURED_MS)}")
    everything: dict[str, list[float]] = {name: [] for name in MEASURED_MS}
    for chip in COLUMNS:
        rates = fit(chip)
        errors = {name: leave_one_out(chip, name) for name in MEASURED_MS}
        print(f"{chip:12} {rates.macs_t:7.3f} {rates.memory_gb:6.2f}  ", *(f"{e:+.1%}" for e in errors.values()))
        for name, error in errors.items():
            everything[name].append(error)
    unets = [error for name in UNETS for error in everything[name]]
    print(f"U-Nets: mean |error| {sum(map(abs, unets)) / len(unets):.1%}, largest {max(map(abs, unets)):.1%}")
    print(f"all: root mean square {root_mean_square([e for errors in everything.values() for e in errors]):.3f}")


if __name__ == "__main__":
    main()
