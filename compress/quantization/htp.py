"""The HTP of a Snapdragon as onnxruntime-qnn offers it: which chips, how to ask for one, and sessions on its emulator.

Compiler and x86 emulator come in one wheel: no phone, no SDK and no account.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compress.errors import UserError

# Snapdragon by QNN's soc_model: (name of the chip, HTP generation). Those that compiled and ran right here.
SOCS = {43: ("sm8550", 73), 57: ("sm8650", 75), 69: ("sm8750", 79), 87: ("sm8850", 81)}
CHIPS = {"8gen2": 43, "8gen3": 57, "8elite": 69, "8elite_gen5": 87}  # by the names that people use
OPTIMIZATION_MODES = (2, 3)
SHARED = "weight_shared"  # a property of wrappers around a binary that holds several networks
MOST_WRAPPER_BYTES = 1_000_000  # a wrapper names its binary and holds nothing else
WHY_NOT_MODE_1 = (
    "mode 1 computes wrong results for four-dimensional maps (a SiLU at 0 dB, measured on the emulator); use 3"
)


@dataclass(frozen=True)
class HtpTarget:
    """What to compile for: QNN's SoC number and how hard the graph is optimized. Default: Snapdragon 8 Gen 3, V75."""

    soc_model: int = 57
    optimization_mode: int = 3

    def __post_init__(self) -> None:
        if self.soc_model not in SOCS:
            known = ", ".join(f"{soc} ({name}, V{arch})" for soc, (name, arch) in SOCS.items())
            raise UserError.of(f"soc_model is {self.soc_model}", "HTP target", f"Use one of {known}.")
        if self.optimization_mode not in OPTIMIZATION_MODES:
            raise UserError.of(f"optimization_mode is {self.optimization_mode}", "HTP target", WHY_NOT_MODE_1 + ".")

    @property
    def soc(self) -> str:
        return SOCS[self.soc_model][0]

    @property
    def arch(self) -> int:
        """HTP generation, 75 for V75."""
        return SOCS[self.soc_model][1]

    def provider_options(self) -> dict[str, str]:
        return {
            "soc_model": str(self.soc_model),
            "htp_arch": str(self.arch),
            "htp_graph_finalization_optimization_mode": str(self.optimization_mode),
        }


@cache
def qnn_provider() -> tuple[Any, str]:
    """The QNN device of onnxruntime, registered once a process, and the path of its HTP backend.

    Raises UserError on platforms for which the wheel does not exist or is not installed.
    """
    try:
        import onnxruntime
        import onnxruntime_qnn  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError.of(
            f"onnxruntime-qnn cannot be imported on {platform.system()} {platform.machine()} ({error})",
            "HTP compiler and emulator",
            "On Linux x86-64 (glibc 2.35 or newer) or Windows: pip install onnxruntime-qnn. Elsewhere stop before "
            "deploy with --until quantize and use the ONNX file.",
        ) from error
    name = onnxruntime_qnn.get_ep_name()
    if name not in {device.ep_name for device in onnxruntime.get_ep_devices()}:
        onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    device = next(device for device in onnxruntime.get_ep_devices() if device.ep_name == name)
    return device, onnxruntime_qnn.get_qnn_htp_path()


def session(model: Path, target: HtpTarget, **config: str) -> Any:
    """An inference session on the HTP backend alone: with one node that it does not take, this raises.

    `config` are session options ("ep.context_enable" written `ep__context_enable`) or, with the prefix `qnn__`,
    options of the provider. Raises UserError for the wrapper of a binary that holds several networks: the emulator
    crashes on those (onnxruntime-qnn 2.7, a segmentation fault).
    """
    import onnxruntime

    _refuse_shared(model)
    device, backend = qnn_provider()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = {"backend_path": backend, **target.provider_options()}
    for name, value in config.items():
        if name.startswith("qnn__"):
            provider[name.removeprefix("qnn__")] = value
        else:
            options.add_session_config_entry(name.replace("__", "."), value)
    options.add_provider_for_devices([device], provider)
    return onnxruntime.InferenceSession(str(model), options)


def _refuse_shared(model: Path) -> None:
    import onnx

    if model.stat().st_size > MOST_WRAPPER_BYTES:
        return
    if any(entry.key == SHARED for entry in onnx.load(model, load_external_data=False).metadata_props):
        raise UserError.of(
            "its binary holds several networks that share weights, which the x86 emulator cannot open",
            str(model),
            "Emulate a binary that was compiled for this network alone: it has the same graph.",
        )
