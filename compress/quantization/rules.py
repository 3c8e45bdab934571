"""What AIMET's configuration for an HTP generation says, read out of the file that AIMET ships.

The simulation asks these rules, so that another generation is another file and not other code. AIMET's own
`QuantizationSimModel` would apply the same file, but traces every module to find the connections that the fx graph
already has (10 to 20 s); a test holds the two against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compress.errors import UserError

# ONNX operator of each module that carries parameters or a fixed range; the configuration speaks in these.
ONNX_TYPE = {
    "Conv2d": "Conv",
    "Linear": "Gemm",
    "LayerNorm": "LayerNormalization",
    "RMSNorm": "RMSNormalization",
    "InstanceNorm1d": "InstanceNormalization",
    "Sigmoid": "Sigmoid",
    "Softmax": "Softmax",
    "ScaleChannels": "Mul",
    "ShiftChannels": "Add",
}


@dataclass(frozen=True)
class HtpRules:
    """One configuration file, asked by module class name."""

    arch: int
    content: dict[str, Any]

    def _of_type(self, module_class: str) -> dict[str, Any]:
        return self.content["op_type"].get(ONNX_TYPE.get(module_class, module_class), {})

    def per_channel(self, module_class: str) -> bool:
        """One scale for every output channel of the weight?"""
        default = self.content["defaults"]["per_channel_quantization"]
        return self._of_type(module_class).get("per_channel_quantization", default) == "True"

    def weight_symmetric(self, module_class: str, bits: int) -> bool:
        """Is the weight's grid symmetric? 16-bit norm weights always are, whatever the file says of 8-bit ones:
        AIMET's builder overrides the file there, since the HTP takes signed 16-bit norm weights only."""
        if bits == 16 and module_class in ("LayerNorm", "RMSNorm"):
            return True
        default = self.content["defaults"]["params"]["is_symmetric"]
        return self._of_type(module_class).get("params", {}).get("weight", {}).get("is_symmetric", default) == "True"

    def fixed_range(self, module_class: str) -> tuple[float, float] | None:
        """The output range that holds whatever the data, (0, 1) for sigmoid and softmax; None where data decides."""
        limits = self._of_type(module_class).get("encoding_constraints", {})
        return (limits["min"], limits["max"]) if {"min", "max"} <= limits.keys() else None

    @property
    def bias_quantized(self) -> bool:
        """False: biases are written as int32 on the scale of input times weight, and not simulated."""
        return self.content["params"]["bias"]["is_quantized"] == "True"


@cache
def load_rules(arch: int) -> HtpRules:
    """The rules for HTP generation `arch` (75 is Snapdragon 8 Gen 3); UserError where AIMET has no such file."""
    found = find_spec("aimet_torch")
    if found is None or found.origin is None:
        raise UserError.of("aimet_torch is not installed", "stage quantize", "Install it: pip install aimet-torch")
    folder = Path(found.origin).parent / "common" / "quantsim_config"
    path = folder / f"htp_quantsim_config_v{arch}.json"
    if not path.is_file():
        known = sorted(file.stem.rsplit("_v", 1)[1] for file in folder.glob("htp_quantsim_config_v??.json"))
        raise UserError.of(
            f"no AIMET configuration for HTP V{arch}", "stage quantize", f"Use one of {', '.join(known)}."
        )
    return HtpRules(arch, json.loads(path.read_text()))
