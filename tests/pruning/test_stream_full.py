"""The streamed path where size matters: what it costs, and what comes out at full size."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from diffusers import DreamLiteUNetModel

from compress.cli import main
from compress.config.stream import StreamConfig
from compress.cost import counted, example_inputs, parameters
from compress.pruning.stream.noise import write_teacher
from compress.pruning.surgery import OPERATORS
from students.presets import dreamlite_full, sdxl_full

# What each operator leads to: parameters in M, GMAC at 128x128 and at 128x256, 77 tokens (DreamLite's evolution).
EVOLUTION = {
    "depth": (1316.3, 2175, 4897),
    "width": (706.2, 1272, 2970),
    "self_attention": (695.7, 1057, 2197),
    "separable": (585.8, 765, 1611),
    "multi_query": (449.9, 720, 1530),
    "feed_forward": (384.2, 629, 1347),
    "cross_attention": (386.4, 658, 1406),
    "size_embedding": (390.0, 659, 1406),
}


def on_the_way():
    """(name, spec after it) of every operator at full size."""
    spec, goal = sdxl_full(), StreamConfig().goal(sdxl_full())
    for name, operator in OPERATORS.items():
        spec = operator.target(spec, goal)
        yield name, spec


@pytest.mark.slow
def test_the_operators_lead_through_the_published_sizes():
    sizes = {name: parameters(spec) / 1e6 for name, spec in on_the_way()}
    assert {name: sizes[name] for name in EVOLUTION} == pytest.approx(
        {n: m for n, (m, _, _) in EVOLUTION.items()}, 1e-3
    )
    assert [spec for _, spec in on_the_way()][-1] == dreamlite_full() and parameters(dreamlite_full()) == 389_968_388


@pytest.mark.slow
def test_the_operators_lead_through_the_published_compute():
    for name, spec in on_the_way():
        if name in EVOLUTION:
            macs_g = [counted(spec, 128, width, 77).macs_g for width in (128, 256)]
            assert macs_g == pytest.approx(EVOLUTION[name][1:], rel=1e-2), name


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--criterion", "taylor", "--layer-rule", "laptop"]], ids=["weights", "data"])
def test_the_bench_prints_one_line_of_what_it_measured(options):
    command = [sys.executable, "-m", "compress.cli", "bench", "surgery", "--json", "--scale", "small", "--shards", "2"]
    child = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)  # its memory alone
    (line,) = child.stdout.splitlines()
    found = json.loads(line)
    assert set(found) == {"parameters", "wall_s", "read_s", "peak_rss_gb"}
    assert found["parameters"] == 6_170_052 and found["wall_s"] > found["read_s"] >= 0 and found["peak_rss_gb"] < 3


def test_a_bench_without_a_file_is_refused(capfd):
    assert main(["bench", "surgery", "--scale", "small", "--shards", "0"]) == 2
    assert "--shards" in capfd.readouterr().err


@pytest.mark.slow
def test_memory_stays_far_below_the_teacher(tmp_path):
    """Operators on a whole network would hold it, 0.9 GB in their fp32, and the next one. A stream adds what it notes
    of each step, most of which does not grow with the teacher, and some of its largest tensors."""
    spec = replace(sdxl_full(), widths=(64, 128, 640), heads=(1, 2, 10), transformer_layers=(1, 1, 4), cross_dim=1024)
    write_teacher(tmp_path, spec, "bf16")
    before_gb, peak_gb = watched(tmp_path, "(64, 128, 320)", "(1, 1, 2)")
    whole_gb = 4 * parameters(spec) / 1e9
    # measured: 0.3 to 0.7 GB, by the machine's allocator
    assert whole_gb > 0.8 and peak_gb - before_gb < 0.9 * whole_gb


def watched(folder: Path, widths: str, layers: str) -> tuple[float, float]:
    """(resident memory when all libraries are loaded, its peak) of a stream in a process of its own, in GB."""
    code = f"""
import sys, psutil, torch
from pathlib import Path
from compress.config.stream import StreamConfig
from compress.cost import cost
from compress.pruning.groups import find_groups
from compress.pruning.stream.evolve import stream, teacher_spec
from compress.pruning.stream.files import open_checkpoint
from compress.pruning.surgery import OPERATORS, Bench
folder = Path({str(folder)!r})
checkpoint = open_checkpoint(folder / "unet")
config = StreamConfig(widths={widths}, transformer_layers={layers}, cross_dim=1024)
spec = teacher_spec(checkpoint)
goal = config.goal(spec)
step = spec
for name, operator in OPERATORS.items():  # groups are traced on shapes, whose memory is not the teacher's
    if name in ("width", "feed_forward"):
        find_groups(step)
    step = operator.target(step, goal)
cost(step, 8, 8, 8)
print(psutil.Process().memory_info().rss / 1e9, flush=True)
bench = Bench([], "magnitude", torch.Generator().manual_seed(0), config.kv_merge)
stream(checkpoint, goal, config.steps, bench, folder / "out")
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert child.stdout is not None
    before_gb, peak = float(child.stdout.readline()), 0
    process = psutil.Process(child.pid)
    while child.poll() is None:
        time.sleep(0.02)
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
    assert child.wait() == 0
    return before_gb, peak / 1e9


@pytest.mark.full_size
def test_full_size_student_loads_strictly_and_runs_at_512_px(tmp_path):
    write_teacher(tmp_path / "teacher", sdxl_full(), "bf16", shards=2)
    arguments = ["run", "dreamlite_sdxl", "--until", "prune", "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert main([*arguments, "--teacher.path", str(tmp_path / "teacher")]) == 0
    out = tmp_path / "runs/dreamlite_sdxl/10-prune"
    unet, info = DreamLiteUNetModel.from_pretrained(out, subfolder="unet", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in unet.parameters()) == 389_968_388
    assert (out / "unet/diffusion_pytorch_model.safetensors").stat().st_size < 0.79e9  # in bf16
    inputs = example_inputs(dreamlite_full(), 64, 128, 77)  # 512 px: target and condition side by side
    inputs["sample"] = torch.randn(inputs["sample"].shape)
    with torch.no_grad():
        velocity = unet(**inputs, return_dict=False)[0]
    assert velocity.shape == (1, 4, 64, 128) and velocity.isfinite().all()
