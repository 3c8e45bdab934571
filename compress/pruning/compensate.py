"""Least squares instead of training: the linear outputs of a student are refitted to its teacher's features.

One forward pass of the student over all calibration samples at once. At every layer that ends in a linear map, the
features that really arrive there (with all that went wrong before) are regressed on what the teacher has at that place;
the map is replaced and the pass goes on with its new output. Errors are thus corrected where they arise and not passed
on, as in layer-wise reconstruction (He et al., arXiv 1707.06168) and OBC (Frantar and Alistarh, arXiv 2208.11580).

Ridge regression towards the current weights: what the samples do not determine stays as it was inherited. A fifth of
the samples checks each fit, which is not made where it does not help there.
Shape suffixes: n samples (pixels or tokens), f features, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import predict
from compress.pruning.features import Place, TeacherFeatures
from compress.pruning.least_squares import affine_fit
from compress.pruning.lineage import Lineage
from compress.pruning.refit import Refitter
from compress.pruning.surgery.base import Draft, transformer_blocks
from compress.pruning.surgery.self_attention import fit_layer_norm
from compress.pruning.surgery.separable import doubled
from compress.pruning.targets import Targets
from students.init import relative_error

RIDGES = (0.01, 0.1, 1.0)
UNFOLD_LIMIT = 640  # refit all nine taps of a 3x3 convolution up to this many features; beyond, mix its outputs


@torch.no_grad()
def compensate(
    draft: Draft, teacher: TeacherFeatures, lineage: Lineage, pair: bool, ridges: Sequence[float] = RIDGES
) -> dict[str, tuple[float, float]]:
    """Refits the draft's linear outputs in place. `pair` runs it as a student runs (target | condition), fitting the
    target's half, unless the teacher runs so too and there are features for both halves; `ridges` are tried at each
    layer, relative to the mean energy of a feature.

    Returns the relative squared error of every refitted map on the fitting samples: {tensor: (before, after)}.
    """
    sites = _Sites(draft, teacher, lineage, pair and not teacher.samples.paired, ridges)
    with ExitStack() as stack:
        for handle in sites.hooks():
            stack.callback(handle.remove)
        predict(draft.unet, teacher.samples, pair)
    return sites.errors


class _Sites(Refitter):
    def __init__(
        self, draft: Draft, teacher: TeacherFeatures, lineage: Lineage, pair: bool, ridges: Sequence[float]
    ) -> None:
        super().__init__(dict(draft.unet.named_modules()), pair, ridges)
        self.spec, self.unet = draft.spec, draft.unet
        self.doubles = draft.spec.separable  # a separable student's inner channels are two copies of a dense teacher's
        self.convolution = "weight"
        if any(name.endswith(".conv1.pointwise") for name in teacher.modules):
            self.doubles, self.convolution = False, "pointwise.weight"  # the teacher has them already
        self.seen: dict[str, Tensor] = {}  # what the student's own modules just received
        self.blocks = transformer_blocks(self.unet)
        self.targets = Targets(self.modules, self.blocks, teacher, lineage)

    def hooks(self) -> list[Any]:
        """Puts a listener on every site of the student."""
        handles = []
        for name in self.targets.named("ResnetBlock"):
            block = self.modules[name]
            handles.append(block.register_forward_pre_hook(self._note(name)))
            handles.append(block.conv1.register_forward_hook(self._at_conv1(name)))
            reader = block.conv2.pointwise if self.spec.separable else block.conv2
            handles.append(reader.register_forward_pre_hook(self._note(f"{name}.conv2")))
            handles.append(block.register_forward_hook(self._at_resnet(name)))
        for name in self.targets.named("Transformer2DModel"):
            transformer = self.modules[name]
            handles.append(transformer.register_forward_pre_hook(self._note_rows))
            handles.append(transformer.proj_out.register_forward_pre_hook(self._note(f"{name}.proj_out")))
            handles.append(transformer.register_forward_hook(self._at_transformer(name)))
        for name, block in self.blocks.items():
            handles += self._block_hooks(name, block)
        for name in self.targets.named("GroupNorm"):
            handles.append(self.modules[name].register_forward_hook(self._at_group_norm(name)))
        for name in self.targets.named("sample2D"):
            handles.append(self.modules[f"{name}.conv"].register_forward_hook(self._at_conv(f"{name}.conv")))
        handles.append(self.modules["conv_out"].register_forward_hook(self._at_conv("conv_out")))
        return handles

    def _block_hooks(self, name: str, block: Any) -> list[Any]:
        stream = f"{name.partition('.transformer_blocks')[0]}.proj_in.weight"
        if self.targets.get(self.targets.stream(name, "norm2"), stream, 2) is None:
            return []  # a new transformer, with nothing in the teacher to be fitted to
        handles = [block.norm3.register_forward_pre_hook(self._note(f"{name}.norm3"))]
        handles.append(block.norm2.register_forward_pre_hook(self._note(f"{name}.norm2")))
        if block.attn1 is None:
            handles.append(block.norm1.register_forward_hook(self._at_norm1(name, stream)))
        else:
            handles.append(block.norm1.register_forward_pre_hook(self._note(f"{name}.norm1")))
            after = self._at_linear(
                f"{name}.attn1.to_out.0", f"{name}.norm1", self.targets.stream(name, "norm2"), stream
            )
            handles.append(block.attn1.to_out[0].register_forward_hook(after))
        after = self._at_linear(f"{name}.attn2.to_out.0", f"{name}.norm2", self.targets.stream(name, "norm3"), stream)
        handles.append(block.attn2.to_out[0].register_forward_hook(after))
        after = self._at_linear(f"{name}.ff.net.2", f"{name}.norm3", self.targets.block_end(name), stream)
        handles.append(block.ff.net[2].register_forward_hook(after))
        return handles

    def _note(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            self.seen[name] = args[0]
            if len(args) > 1 and isinstance(args[1], Tensor):
                self.seen[f"{name}/temb"] = args[1]

        return hook

    def _note_rows(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        self.rows = args[0].shape[2]

    def _at_group_norm(self, name: str) -> Callable[..., Tensor | None]:
        """Scale and shift of every channel: statistics over fewer channels, or over a pair, are not the teacher's."""

        def hook(norm: nn.GroupNorm, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            wanted = self.targets.get(self.targets.norm(name), f"{name}.weight", 1)
            if wanted is None:
                return None
            if self.doubles and name.endswith("norm2"):
                wanted = _twice(wanted, self.spec.norm_groups)
            unit = nn.functional.group_norm(args[0], norm.num_groups, eps=norm.eps)
            unit_nc, wanted_nc = self.pixels(unit), wanted.movedim(1, -1).flatten(0, -2)
            before = relative_error(self.pixels(output), wanted_nc)
            scale_c, shift_c, _ = affine_fit(unit_nc, wanted_nc)
            free_c = norm.weight != 0  # a scale of 0 makes a constant channel, which carries a bias
            norm.weight.copy_(torch.where(free_c, scale_c.to(norm.weight), norm.weight))
            norm.bias.copy_(torch.where(free_c, shift_c.to(norm.bias), norm.bias))
            made = norm.forward(args[0])
            after = relative_error(self.pixels(made), wanted_nc)
            self.errors |= {f"{name}.weight": (before, after), f"{name}.bias": (before, after)}
            return made

        return hook

    def _at_norm1(self, name: str, stream: str) -> Callable[..., Tensor | None]:
        def hook(norm: nn.LayerNorm, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            wanted = self.targets.get(self.targets.stream(name, "norm2"), stream, 2)
            assert wanted is not None
            h_nc, wanted_nc = self.tokens(args[0]), wanted.flatten(0, 1)
            before = relative_error(self.tokens(output), wanted_nc)
            scale_c, shift_c, error = fit_layer_norm(h_nc, wanted_nc, norm.eps)
            norm.weight.copy_(scale_c)
            norm.bias.copy_(shift_c)
            self.errors |= {f"{name}.norm1.{kind}": (before, error) for kind in ("weight", "bias")}
            return nn.functional.layer_norm(args[0], norm.normalized_shape, norm.weight, norm.bias, norm.eps)

        return hook

    def _at_linear(self, name: str, base: str, target: Place, stream: str) -> Callable[..., Tensor | None]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            wanted = self.targets.get(target, stream, 2)
            if wanted is None:
                return None
            wanted_nc = wanted.flatten(0, 1)
            gap_nc = wanted_nc - self.tokens(self.seen[base])
            self.refit([name], [self.tokens(args[0])], gap_nc, wanted_nc)
            return nn.functional.linear(args[0], module.weight, module.bias)

        return hook

    def _at_transformer(self, name: str) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
            wanted = self.targets.get(self.targets.layer_end(name), f"{name}.proj_out.weight", 1)
            if wanted is None or not self.targets.has(name):
                return None
            wanted_nc = wanted.movedim(1, -1).flatten(0, -2)
            inner = self.seen[f"{name}.proj_out"]
            gap_nc = wanted_nc - self.pixels(args[0])
            phi = self.tokens(inner) if inner.dim() == 3 else self.pixels(inner)
            self.refit([f"{name}.proj_out"], [phi], gap_nc, wanted_nc)
            made = module.proj_out(inner)
            if made.dim() == 3:
                batch, channels, height, width = args[0].shape
                made = made.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
            made = made + args[0]
            return (made,) if isinstance(output, tuple) else type(output)(sample=made)

        return hook

    def _at_conv1(self, name: str) -> Callable[..., Tensor | None]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            wanted = self.targets.get(self.targets.inner(name), f"{name}.conv1.{self.convolution}", 1)
            if wanted is None:
                return None
            block = self.modules[name]
            time_bc = block.time_emb_proj(block.nonlinearity(self.seen[f"{name}/temb"]))
            if self.doubles:
                wanted = _twice(wanted, self.spec.norm_groups)
            wanted_nc = wanted.movedim(1, -1).flatten(0, -2)
            gap_nc = (wanted - time_bc[:, :, None, None]).movedim(1, -1).flatten(0, -2)
            if self.spec.separable:
                phi = module.depthwise(args[0])
                self.refit([f"{name}.conv1.pointwise"], [self.pixels(phi)], gap_nc, wanted_nc)
                return module.pointwise(phi)
            return self.mix(f"{name}.conv1", module, args[0], gap_nc, wanted_nc)

        return hook

    def _at_resnet(self, name: str) -> Callable[..., Tensor | None]:
        def hook(block: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            wanted = self.targets.get(self.targets.resnet(name), f"{name}.conv2.{self.convolution}", 1)
            if wanted is None:
                return None
            wanted_nc = wanted.movedim(1, -1).flatten(0, -2)
            z, x = self.seen[f"{name}.conv2"], args[0]
            shortcut = block.conv_shortcut
            if not self.spec.separable:
                base = x if shortcut is None else shortcut(x)
                return base + self.mix(f"{name}.conv2", block.conv2, z, wanted_nc - self.pixels(base), wanted_nc)
            pointwise = block.conv2.pointwise
            if shortcut is None:
                gap_nc = wanted_nc - self.pixels(x)
                self.refit([f"{name}.conv2.pointwise"], [self.pixels(z)], gap_nc, wanted_nc)
                return x + pointwise(z)
            phis = [self.pixels(z), self.pixels(x)]
            self.refit([f"{name}.conv2.pointwise", f"{name}.conv_shortcut"], phis, wanted_nc, wanted_nc)
            return shortcut(x) + pointwise(z)

        return hook

    def _at_conv(self, name: str) -> Callable[..., Tensor | None]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            wanted = self.targets.get((name, "out"), f"{name}.weight", 1)
            if wanted is None:
                return None
            wanted_nc = wanted.movedim(1, -1).flatten(0, -2)
            if module.in_channels * 9 > UNFOLD_LIMIT:
                return self.mix(name, module, args[0], wanted_nc, wanted_nc)
            taps = nn.functional.unfold(args[0], 3, padding=module.padding, stride=module.stride)
            maps = taps.reshape(len(taps), -1, *output.shape[2:])
            self.refit([name], [self.pixels(maps)], wanted_nc, wanted_nc)
            return module.forward(args[0])

        return hook


def _twice(x_bchw: Tensor, norm_groups: int) -> Tensor:
    """Every channel twice, where a separable block keeps its two copies."""
    first, second = doubled(x_bchw.shape[1], norm_groups)
    both = x_bchw.new_empty(x_bchw.shape[0], 2 * x_bchw.shape[1], *x_bchw.shape[2:])
    both[:, first], both[:, second] = x_bchw, x_bchw
    return both
