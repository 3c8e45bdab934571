"""How often the interval of Kendall's tau in a study's report covers the truth, against Fieller's approximation.

    python -m tests.benchmarks.rank_interval --samples 100

draws pairs from a bivariate normal distribution, whose tau is (2 / pi) asin(rho), and prints the share of samples whose
95 % interval holds it. Samples that agree wholly have no bootstrap interval and are left out of its share.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from reports.study.ladder import tau

SIZES, TRUTHS = (9, 12, 27), (0.0, 0.4, 0.75)


def fieller(value: float, count: int) -> tuple[float, float]:
    """Fieller, Hartley and Pearson, "Tests for rank correlation coefficients" (1957): atanh(tau) has variance
    0.437 / (n - 4)."""
    centre, spread = math.atanh(max(-1 + 1e-9, min(value, 1 - 1e-9))), 1.96 * math.sqrt(0.437 / (count - 4))
    return math.tanh(centre - spread), math.tanh(centre + spread)


def main() -> None:
    """Prints a line a setting."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100)
    samples = parser.parse_args().samples
    rng = np.random.default_rng(0)
    for count in SIZES:
        for truth in TRUTHS:
            rho = math.sin(math.pi * truth / 2)
            boot, told, approximate = 0, 0, 0
            for _ in range(samples):
                x_n = rng.normal(size=count)
                y_n = rho * x_n + math.sqrt(1 - rho**2) * rng.normal(size=count)
                found = tau(list(zip(x_n, y_n, strict=True)))
                assert found.value is not None
                low, high = fieller(found.value, count)
                approximate += low <= truth <= high
                if found.low is not None and found.high is not None:
                    told += 1
                    boot += found.low <= truth <= found.high
            share = boot / told if told else math.nan
            print(f"n {count}, tau {truth}: bootstrap {share:.3f}, Fieller {approximate / samples:.3f}", flush=True)


if __name__ == "__main__":
    main()
