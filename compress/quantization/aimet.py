"""The AIMET simulation of the network in W8A16: quantizers on every tensor, calibration, and fake-quantized forwards.

Weights int8 symmetric with one scale an output channel, activations uint16, the second operand of attention's matrix
products int16 symmetric, norm weights 16 bit, biases int32 on the scale of input times weight (not simulated).
`rules.py` reads most of that out of AIMET's own configuration for the HTP generation.

AIMET is heavy and is imported inside the functions that need it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from compress.quantization import ops
from compress.quantization.grids import Encoding, Encodings, GridKind, class_name, kind_of, tied_groups
from compress.quantization.host import Inputs
from compress.quantization.observe import observe_activations, observe_parameter
from compress.quantization.ranges import MIN_MAX, Ranges, sequential_mse
from compress.quantization.rules import HtpRules

# The HTP adds the int32 bias, and minus the output's zero point, in an int32 accumulator. AIMET keeps 2^15 of room.
ACCUMULATOR_LIMIT = 2**31 - 2**15
# HexNN misreads a requantization scale of 2^-24 or less as one 2^32 times larger.
SMALLEST_REQUANTIZATION = 2.0**-24

PARAMETER_BITS = {"LayerNorm": 16, "RMSNorm": 16, "ScaleChannels": 16, "ShiftChannels": 16}  # all others 8


class Simulation:
    """The network with AIMET's quantizers; call `calibrate`, or `load` known encodings, before anything else.

    `wide` names the weights ("node.weight") that get 16 bits instead of 8; `ranges` says how grids follow from what is
    observed. Shares the float graph's weights; the graph itself is left as it was.
    """

    def __init__(
        self, graph_module: fx.GraphModule, rules: HtpRules, wide: Collection[str] = (), ranges: Ranges = MIN_MAX
    ) -> None:
        register_ops()
        from aimet_torch.nn import QuantizationMixin

        self.float_graph, self.ranges = graph_module, ranges
        wrapped: dict[str, Any] = {}
        for node in graph_module.graph.nodes:
            if node.op == "call_module":
                wrapped[str(node.target)] = QuantizationMixin.from_module(graph_module.get_submodule(str(node.target)))
        self.graph_module = fx.GraphModule(wrapped, copy.deepcopy(graph_module.graph))
        self.grids: dict[str, Any] = {}  # node -> its quantizer; tied nodes have the very same one
        for group in tied_groups(graph_module):
            quantizer = _activation_quantizer(kind_of(group, rules), ranges)
            for node in group:
                wrapped[str(node.target)].output_quantizers[0] = quantizer
                self.grids[node.name] = quantizer
        for node in graph_module.graph.nodes:
            if node.op == "call_module":
                widened = {name.removeprefix(f"{node.name}.") for name in wide if name.startswith(f"{node.name}.")}
                _attach_parameter_quantizers(wrapped[str(node.target)], rules, widened, ranges)
        self.graph_module.eval().requires_grad_(False)

    def nodes(self) -> Iterator[tuple[fx.Node, Any]]:
        """Every node that computes, with its AIMET module."""
        for node in self.graph_module.graph.nodes:
            if node.op == "call_module":
                yield node, self.graph_module.get_submodule(str(node.target))

    def _parameter_quantizers(self) -> Iterator[tuple[str, Tensor, Any]]:
        for node, module in self.nodes():
            for name, quantizer in module.param_quantizers.items():
                if quantizer is not None:
                    yield f"{node.name}.{name}", getattr(module, name), quantizer

    @torch.no_grad()
    def __call__(self, inputs: Inputs) -> Tensor:
        """The fake-quantized result (of a U-Net the velocity pair), at any batch size."""
        return _plain(self.graph_module(*inputs.tensors()))

    @torch.no_grad()
    def calibrate(self, inputs: Inputs, batch_size: int = 16, headroom_ratio: float = 1.0) -> int:
        """Shows AIMET weights and float activations; returns how many layers the accumulator guard changed.

        `headroom_ratio` widens the observed activation ranges: the HTP's fused operators do not clip every inner
        tensor, so that a value outside its range is where emulator and simulation part.
        """
        for _, parameter, quantizer in self._parameter_quantizers():
            observe_parameter(parameter, quantizer)
        if self.ranges.weights == "seq_mse":
            sequential_mse(self, inputs)
        batches = (inputs[start : start + batch_size].tensors() for start in range(0, len(inputs), batch_size))
        observe_activations(self.float_graph, self.grids, batches, headroom_ratio)
        return self._guard_accumulators()

    def _guard_accumulators(self) -> int:
        changed = 0
        for node, module in self.nodes():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                (source,) = node.all_input_nodes
                changed += guard_accumulator(module, self.grids[source.name], self.grids[node.name])
        return changed

    def encodings(self) -> Encodings:
        """All calibrated grids. RuntimeError where a tensor was never observed."""
        found = Encodings()
        for name, quantizer in self.grids.items():
            found.tensors[name] = _encoding(name, quantizer)
        for name, _, quantizer in self._parameter_quantizers():
            found.parameters[name] = _encoding(name, quantizer)
        return found

    def load(self, encodings: Encodings) -> None:
        """Takes over calibrated grids. KeyError where one is missing."""
        for name, quantizer in self.grids.items():
            _set_encoding(quantizer, encodings.tensors[name])
        for name, _, quantizer in self._parameter_quantizers():
            _set_encoding(quantizer, encodings.parameters[name])


def guard_accumulator(module: Any, input_quantizer: Any, output_quantizer: Any) -> int:
    """Widens weight scales, channel by channel, until nothing overflows on the HTP; returns 1 where it had to.

    With scales sx, sw, sy and output offset zy (AIMET's, negative), the HTP needs |b| and |b + zy * sy| below
    ACCUMULATOR_LIMIT * sx * sw, and sx * sw / sy above SMALLEST_REQUANTIZATION. AIMET guards the same three in its
    own modules' compute_encodings, which the direct calibration of quantizers here does not pass through.
    """
    weight_quantizer = module.param_quantizers["weight"]
    widened = safe_scale(module, input_quantizer, output_quantizer)
    if torch.equal(widened, weight_quantizer.get_encodings().scale):
        return 0
    weight_quantizer.set_range(widened * weight_quantizer.qmin, widened * weight_quantizer.qmax)
    return 1


def safe_scale(module: Any, input_quantizer: Any, output_quantizer: Any) -> Tensor:
    """The least weight scale of every channel, not below the calibrated one, with which nothing overflows."""
    source, result = input_quantizer.get_encodings(), output_quantizer.get_encodings()
    scale = module.param_quantizers["weight"].get_encodings().scale.double()
    bias = torch.zeros(module.weight.shape[0]) if module.bias is None else module.bias.detach()
    bias = bias.double().reshape(scale.shape)
    reach = torch.maximum(bias.abs(), (bias + result.offset.double() * result.scale.double()).abs())
    needed = reach / (ACCUMULATOR_LIMIT * source.scale.double())
    smallest = SMALLEST_REQUANTIZATION * result.scale.double() / source.scale.double() * (1 + 1e-6)
    return torch.maximum(torch.maximum(scale, needed), smallest).float()


def _activation_quantizer(kind: GridKind, ranges: Ranges) -> Any:
    from aimet_torch.quantization.affine import QuantizeDequantize

    quantizer = QuantizeDequantize(
        shape=(), bitwidth=kind.bits, symmetric=kind.signed, encoding_analyzer=ranges.of_activation()
    )
    if kind.fixed is not None:
        quantizer.set_range(*kind.fixed)
        quantizer.allow_overwrite(False)
    return quantizer


def _attach_parameter_quantizers(module: Any, rules: HtpRules, wide: Collection[str], ranges: Ranges) -> None:
    """Weight quantizers; biases have none, ShiftChannels' constant is an operand and not a bias."""
    from aimet_torch.quantization.affine import QuantizeDequantize

    kind = class_name(module)
    for name, parameter in module.named_parameters(recurse=False):
        if name == "bias":
            continue
        bits = 16 if name in wide else PARAMETER_BITS.get(kind, 8)
        shape: tuple[int, ...] = ()
        if rules.per_channel(kind):
            shape = (parameter.shape[0], *[1] * (parameter.ndim - 1))
        symmetric = rules.weight_symmetric(kind, bits) and kind not in ("ScaleChannels", "ShiftChannels")
        # Norms have 16 bits, which need no search for the range that they lose least in.
        analyzer = (ranges if bits == 8 else MIN_MAX).of_weight(shape)
        module.param_quantizers[name] = QuantizeDequantize(
            shape=shape, bitwidth=bits, symmetric=symmetric, encoding_analyzer=analyzer
        )


def _encoding(name: str, quantizer: Any) -> Encoding:
    found = quantizer.get_encodings()
    if found is None:
        raise RuntimeError(f"tensor {name} was not observed in calibration")
    scale = found.scale.detach().float()
    offset = 0 if found.symmetry else int(found.offset)
    return Encoding(
        np.array(scale.squeeze() if scale.numel() > 1 else scale.reshape(())), -offset, found.bitwidth, found.symmetry
    )


def _set_encoding(quantizer: Any, encoding: Encoding) -> None:
    scale = torch.from_numpy(encoding.scale.astype(np.float64)).reshape(quantizer.shape)
    low, high = np.iinfo(encoding.dtype).min, np.iinfo(encoding.dtype).max
    quantizer.set_range(scale * (low - encoding.zero_point), scale * (high - encoding.zero_point))


def _plain(value: Tensor) -> Tensor:
    """Without AIMET's tensor subclass, which carries its encoding along."""
    return value.as_subclass(Tensor)


def register_ops() -> None:
    """Tells AIMET, which it imports first, how the modules of `ops` are quantized: parameters, then the result."""
    from aimet_torch.nn import QuantizationMixin

    kinds: tuple[type[nn.Module], ...] = (
        ops.Add,
        ops.Multiply,
        ops.MatMul,
        ops.Concat,
        ops.Reshape,
        ops.Permute,
        ops.ScaleChannels,
        ops.ShiftChannels,
        ops.Requantize,
        ops.NetworkInput,
        nn.RMSNorm,
    )
    for kind in kinds:
        if kind not in QuantizationMixin.cls_to_qcls:
            name = f"Quantized{kind.__name__}"
            members = {"__module__": __name__, "forward": _quantized_forward(kind)}
            QuantizationMixin.implements(kind)(type(name, (QuantizationMixin, kind), members))


def _quantized_forward(kind: type[nn.Module]) -> Any:
    def forward(self: Any, *operands: Tensor) -> Tensor:
        with self._patch_quantized_parameters():
            result = kind.forward(self, *map(_plain, operands))
        (quantizer,) = self.output_quantizers
        return result if quantizer is None else quantizer(result)

    return forward
