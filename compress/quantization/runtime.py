"""The student's U-Net by other means, each a VelocityModel: float graph, AIMET simulation, QDQ ONNX, HTP emulator.

Samplers and benchmarks take them in place of the student itself. Files are those that the stages quantize and deploy
leave: unet/, quantized/ (model.onnx, encodings.json, io_spec.json) and unet_<soc>_<hash>.onnx beside its binary.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from compress.errors import UserError
from compress.kept import Kept
from compress.quantization.host import HostDenoiser, Inputs, IoSpec

# onnxruntime fuses MatMuls behind 8-bit weights (its pull request 27614) and then rounds their activations to 8 bits
# if a processor has a kernel for that: 59.5 dB to the simulation instead of 68 on one with AVX2 alone. Level 1: float.
FLOAT_ACTIVATIONS = ("session.qdq_matmulnbits_accuracy_level", "1")
QUANTIZED = "quantized"  # folder of an artefact
ROUNDED = "rounded.safetensors"  # in it
RUNTIMES = ("torch", "simulation", "onnx", "htp")


class SessionRunner:
    """Feeds onnxruntime sessions of batch 1 row by row, one thread a session.

    `after_row`, if set, follows each row; with `kept` a row that was answered before is not computed again.
    """

    def __init__(self, *sessions: Any) -> None:
        self.sessions = sessions
        self.names = [value.name for value in sessions[0].get_inputs()]
        self.after_row: Callable[[], None] | None = None
        self.kept: Kept | None = None
        self._lock = Lock()

    def __call__(self, inputs: Inputs) -> Tensor:
        count = len(self.sessions)
        shares = [range(first, len(inputs), count) for first in range(count)]
        with ThreadPoolExecutor(count) as pool:
            done = list(pool.map(lambda session, rows: self._run(session, inputs, rows), self.sessions, shares))
        rows = [done[row % count][row // count] for row in range(len(inputs))]
        return torch.cat(rows)

    def _run(self, session: Any, inputs: Inputs, rows: range) -> list[Tensor]:
        results = []
        for row in rows:
            named = inputs[row : row + 1].named()
            given = {name: np.ascontiguousarray(named[name]) for name in self.names}
            if self.kept is None:
                results.append(_answer(session, given))
            else:
                results.append(self.kept.tensor(_digest(given), partial(_answer, session, given)))
            if self.after_row is not None:
                with self._lock:
                    self.after_row()
        return results


def _answer(session: Any, given: dict[str, np.ndarray]) -> Tensor:
    (result,) = session.run(None, given)
    return torch.from_numpy(np.array(result))  # copied: the array may die with the session


def _digest(given: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, values in given.items():
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


class OnnxUNet(HostDenoiser):
    """The QDQ ONNX file on onnxruntime's CPU provider; agrees with the AIMET simulation to about 70 dB."""

    def __init__(self, model: Path, spec: IoSpec, threads: int | None = None, as_written: bool = False) -> None:
        self.runner = SessionRunner(cpu_session(model, threads, as_written))
        super().__init__(spec, self.runner)


def cpu_session(model: Path, threads: int | None = None, as_written: bool = False) -> Any:
    """An onnxruntime session on the CPU, by default with as many threads as torch has.

    `as_written` computes between quantizers in float, as the file says, and not by fused integer kernels: slower, the
    same on every processor, and the only way for some W8A8 files, whose quantizers onnxruntime 1.31 moves wrongly.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.add_session_config_entry(*FLOAT_ACTIVATIONS)
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class EmulatedUNet(HostDenoiser):
    """A compiled context binary on the x86 emulator of the HTP: the HTP's arithmetic, not its speed (about 1 s).

    The emulator keeps one core busy; `sessions` of them run side by side.
    """

    def __init__(self, wrapper: Path, spec: IoSpec, soc_model: int = 57, sessions: int = 1) -> None:
        from compress.quantization.htp import HtpTarget, session

        self.runner = SessionRunner(*(session(wrapper, HtpTarget(soc_model)) for _ in range(sessions)))
        super().__init__(spec, self.runner)


def float_unet(unet: Any, spec: IoSpec) -> HostDenoiser:
    """The U-Net itself, called on the very inputs that the quantized forms take."""
    from compress.quantization.graph import behind_sinusoids

    network = behind_sinusoids(_on_cpu(unet))
    return HostDenoiser(spec, lambda inputs: network(*inputs.tensors()))


def simulated_unet(unet: Any, folder: Path, arch: int = 75) -> HostDenoiser:
    """The AIMET simulation with the encodings in `folder`, which is the artefact's quantized/."""
    from compress.quantization.aimet import Simulation
    from compress.quantization.grids import Encodings
    from compress.quantization.passes import htp_graph
    from compress.quantization.rounding import put
    from compress.quantization.rules import load_rules

    spec = IoSpec.load(folder / "io_spec.json")
    encodings = Encodings.load(folder / "encodings.json")
    simulation = Simulation(htp_graph(_on_cpu(unet), spec), load_rules(arch), encodings.wide)
    simulation.load(encodings)
    if (folder / ROUNDED).is_file():
        put(simulation, load_file(folder / ROUNDED))
    return HostDenoiser(spec, simulation)


def _on_cpu(unet: Any) -> Any:
    """The network where the host's inputs are; the given one stays on its device."""
    return unet if unet.device.type == "cpu" else copy.deepcopy(unet).to("cpu")


def open_runtime(folder: Path, runtime: str, unet: Any) -> HostDenoiser:
    """The denoiser of the artefact in `folder` under `runtime`, one of RUNTIMES; `unet` is its float U-Net.

    Raises UserError where the artefact does not have what the runtime needs.
    """
    quantized = Path(folder) / QUANTIZED
    if runtime not in RUNTIMES:
        raise UserError.of(f"runtime is {runtime!r}", str(folder), f"Use one of {', '.join(RUNTIMES)}.")
    if not (quantized / "io_spec.json").is_file():
        remedy = "Use the artefact of stage quantize or deploy, for example runs/scenes/90-deploy."
        raise UserError.of(f"there is no {QUANTIZED}/io_spec.json, which runtime {runtime} needs", str(folder), remedy)
    spec = IoSpec.load(quantized / "io_spec.json")
    openers: dict[str, Callable[[], HostDenoiser]] = {
        "torch": lambda: float_unet(unet, spec),
        "simulation": lambda: simulated_unet(unet, quantized),
        "onnx": lambda: OnnxUNet(quantized / "model.onnx", spec),
        "htp": lambda: _open_htp(Path(folder), spec),
    }
    return openers[runtime]()


def _open_htp(folder: Path, spec: IoSpec) -> EmulatedUNet:
    from compress.quantization.htp import SOCS

    for soc_model, (soc, _) in SOCS.items():
        for wrapper in sorted(folder.glob(f"unet_{soc}_*.onnx")):
            return EmulatedUNet(wrapper, spec, soc_model)
    remedy = "Use the artefact of stage deploy, for example runs/scenes/90-deploy."
    raise UserError.of("there is no compiled context binary", str(folder), remedy)
