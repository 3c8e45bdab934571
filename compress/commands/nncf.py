"""`pocketdiff nncf CKPT`: the student of a quantize artefact by NNCF, beside AIMET's, for CPUs and NPUs.

A command and not a stage: it leads away from the phone, nothing follows it, and a comparison must neither change the
key of what it compares with nor have it made again. Calibration data and held-out calls are those of the artefact.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import CARD, load_card, write_json
from compress.commands.checkpoint import open_checkpoint, own_stdout
from compress.commands.sensitivity import run_of
from compress.errors import Problem, UserError
from compress.evaluation.scenes_bench import EDIT_TASKS
from compress.progress import make_console, make_progress
from compress.quantization.nncf_backend import FORMS, OpenVinoUNet, has_openvino, write_form
from compress.quantization.qairt import write_float
from compress.quantization.runtime import QUANTIZED, OnnxUNet, float_unet

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from compress.data.calibration import CalibrationSet
    from compress.quantization.host import IoSpec
    from compress.stages.context import Progress
    from students.system import DiffusionSystem

FOLDER, FILE = "nncf", "nncf.json"
SCORES = ("t2i", "edit", "overall")


def main(options: argparse.Namespace) -> int:
    """Makes every form, keeps files and rows, and prints one line of JSON or a table."""
    forms, checkpoint = checked(options), Path(options.checkpoint)
    run = run_of(checkpoint, None) or Path()
    out = Path(options.out) if options.out else run / FOLDER / checkpoint.resolve().name
    progress = make_progress()
    try:
        with own_stdout():
            found = measure(checkpoint, forms, options.images, out, progress)
    finally:
        progress.close()
    if options.json:
        print(json.dumps(found))
        return 0
    console = make_console()
    console.print(table_of(found))
    ran = "as OpenVINO computes them too" if found["openvino"] else "OpenVINO is not installed: pip install openvino"
    console.print(f"The ONNX files are in {out} ({ran}).", highlight=False)
    return 0


def checked(options: argparse.Namespace) -> list[str]:
    """The forms asked for; UserError for every mistake that can be told without the checkpoint."""
    forms = options.forms.split(",")
    problems = [
        Problem(f"--forms has {form!r}", "command line", f"Use any of {', '.join(FORMS)}.")
        for form in forms
        if form not in FORMS
    ]
    if options.images and options.images < len(EDIT_TASKS):
        remedy = f"Use 0 (no scores) or at least {len(EDIT_TASKS)}, one a kind of edit."
        problems.append(Problem(f"--images is {options.images}", "command line", remedy))
    if problems:
        raise UserError(*problems)
    return forms


def measure(checkpoint: Path, forms: list[str], images: int, out: Path, progress: Progress) -> dict[str, Any]:
    """Files in `out`, and a row a form: float, AIMET's W8A16 and NNCF's, all on the calls that calibration left out."""
    from compress.data.calibration import CalibrationSet
    from compress.quantization.grids import Encodings
    from compress.quantization.host import IoSpec
    from compress.quantization.parity import answers
    from compress.quantization.passes import htp_graph

    quantized = checkpoint / QUANTIZED
    if not (quantized / "calibration.safetensors").is_file():
        remedy = "Name the artefact of stage quantize, for example runs/scenes/80-quantize."
        raise UserError.of(f"there is no {QUANTIZED}/calibration.safetensors", str(checkpoint), remedy)
    system, _ = open_checkpoint(checkpoint, "torch", "cpu")
    spec = IoSpec.load(quantized / "io_spec.json")
    recorded, held_out = CalibrationSet.load(quantized / "calibration.safetensors")
    measured = recorded.trajectories(held_out)
    used = recorded.trajectories(sorted(set(recorded.trajectory_n.tolist()) - set(held_out)))
    out.mkdir(parents=True, exist_ok=True)
    unet: Any = system.unet
    write_float(htp_graph(unet, spec), Encodings.load(quantized / "encodings.json"), out / "float.onnx")
    expected = answers({"float": float_unet(unet, spec)}, measured.inputs)["float"]
    bench = Bench(system, spec, measured, expected, images, progress)
    card = load_card(checkpoint) if (checkpoint / CARD).exists() else None
    aimet_s = card.metrics.get("quantize_s") if card else None
    rows = [bench.row("float", out / "float.onnx"), bench.row("aimet_w8a16", quantized / "model.onnx", aimet_s)]
    for form in forms:
        progress.message(f"NNCF {form} on {len(used)} calls")
        start = time.perf_counter()
        write_form(out / "float.onnx", form, used.inputs, out / f"{form}.onnx")
        rows.append(bench.row(f"nncf_{form}", out / f"{form}.onnx", time.perf_counter() - start))
    found = {
        "checkpoint": checkpoint.resolve().name,
        "key": card.key if card else None,
        "calibration_calls_count": len(used),
        "measured_calls_count": len(measured),
        "scored_images": images,
        "openvino": has_openvino(),
        "rows": rows,
    }
    write_json(out / FILE, found)
    return found


class Bench:
    """What every form is measured on: the same calls, the same prompts and edits, the same autoencoder."""

    def __init__(
        self,
        system: DiffusionSystem,
        spec: IoSpec,
        measured: CalibrationSet,
        expected: Tensor,
        images: int,
        progress: Progress,
    ) -> None:
        self.system, self.spec, self.measured, self.expected = system, spec, measured, expected
        self.images, self.progress = images, progress

    def row(self, form: str, model: Path, quantize_s: float | None = None) -> dict[str, Any]:
        """The columns that a quantize card has, of one ONNX file; what was not measured is None."""
        from compress.quantization.parity import answers, sqnr_db, trajectory_parity
        from compress.quantization.scoring import scores

        denoiser = OnnxUNet(model, self.spec, as_written=form.startswith("nncf"))
        found = answers({form: denoiser}, self.measured.inputs)[form]
        parity = trajectory_parity(self.expected, found, self.measured.step_n)
        row: dict[str, Any] = {
            "form": form,
            "size_mb": model.stat().st_size / 1e6,
            "quantize_s": quantize_s,
            "vs_float_sqnr_db": parity.overall_db,
            "vs_float_sqnr_db_by_step": list(parity.by_step_db),
            "openvino_vs_onnx_sqnr_db": None,
            **dict.fromkeys(SCORES),
        }
        if has_openvino() and form != "aimet_w8a16":  # that file is for the HTP
            other = answers({form: OpenVinoUNet(model, self.spec)}, self.measured.inputs)[form]
            row["openvino_vs_onnx_sqnr_db"] = sqnr_db(found, other)
        if self.images:
            row |= scores(self.system, denoiser, self.images, self.progress)
        return row


def table_of(found: dict[str, Any]) -> Table:
    """One line a form."""
    from rich.table import Table

    columns = {
        "size_mb": "MB",
        "vs_float_sqnr_db": "SQNR dB",
        "openvino_vs_onnx_sqnr_db": "OpenVINO dB",
        **{name: name for name in SCORES},
        "quantize_s": "s",
    }
    table = Table("form", *columns.values(), box=None, padding=(0, 2, 0, 0))
    for row in found["rows"]:
        table.add_row(row["form"], *("" if row[name] is None else f"{row[name]:.3g}" for name in columns))
    return table
