"""What an operator is: it changes some fields of a spec, and carries the weights across that change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import set_module_tensor_to_device
from torch import Tensor, nn

from compress.cost import empty, skeleton
from compress.pruning.calibration import Noised, Watch, predict, unwatched
from compress.pruning.criteria import CRITERIA, Criterion, Refit, gather
from compress.pruning.importance import Saliency
from compress.pruning.lineage import Lineage
from compress.pruning.remembered import RememberedScores
from compress.pruning.stream.saliency import score_streamed
from students.init import Transplant, shapes
from students.spec import StudentSpec


@dataclass
class Draft:
    """A student on its way: what it is, and a network of that spec in evaluation mode.

    Where the network is larger than memory, `unet` has shapes and no weights (it is on the meta device), and `streamed`
    computes each tensor when it is asked for.
    """

    spec: StudentSpec
    unet: nn.Module
    streamed: Mapping[str, Tensor] | None = None

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Every tensor of the network by name."""
        return self.unet.state_dict() if self.streamed is None else self.streamed

    def load(self, dtype: torch.dtype) -> nn.Module:
        """A streamed network with its weights, all in memory and frozen. Layers between which activations are kept for
        a backward pass are computed twice instead, as far as the class can do that."""
        assert self.streamed is not None
        unet: Any = empty(self.spec)
        for name in list(self.streamed):
            set_module_tensor_to_device(unet, name, "cpu", self.streamed[name].to(dtype), dtype)
        unet.enable_gradient_checkpointing()
        return unet.eval().requires_grad_(False)

    def become(self, spec: StudentSpec, transplant: Transplant) -> Draft:
        """The network of `spec` that a transplant from this one makes; streamed if this one is."""
        if self.streamed is not None:
            return Draft(spec, skeleton(spec), transplant.lazy_state())
        unet = empty(spec)
        unet.load_state_dict(transplant.state(), strict=True, assign=True)
        return Draft(spec, unet.requires_grad_(False).to(next(self.unet.parameters()).device))

    def as_plain(self) -> Draft:
        """The same tensors in a `UNet2DConditionModel`; ValueError for what that class cannot express."""
        if self.spec.plain:
            return self
        spec = replace(self.spec, plain=True)
        if self.streamed is not None:
            return Draft(spec, skeleton(spec), self.streamed)
        unet = empty(spec)
        unet.load_state_dict(self.unet.state_dict(), strict=True, assign=True)
        return Draft(spec, unet.requires_grad_(False))


@dataclass
class Bench:
    """What operators may consult: calibration batches, the criterion, and a source of chance.

    Without batches, what an operator would fit to activations it derives from the weights instead (see expected.py).
    `layer_rule` names the rule that chooses layers; None goes by skipping them, or by their weights where the criterion
    looks at no data. `report` collects what the operators decided, for cards and plots. Saliency is computed when first
    asked for and again for each new draft, since weights and names have changed by then.

    With `remembered`, a criterion that leaves nothing but scores is not asked twice about the same weights.

    A network larger than memory in fp32 may still fit in 16 bits: with batches, a streamed draft is read into memory in
    `dtype` when samples have to go through it, and freed when the next one is.
    """

    batches: list[Noised]
    criterion: str
    generator: torch.Generator
    kv_merge: str = "svd"
    layer_rule: str | None = None
    report: dict[str, Any] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    dtype: torch.dtype = torch.float32
    watch: Watch = unwatched
    remembered: RememberedScores | None = None
    _scored: tuple[Draft, Criterion | None, Saliency] | None = None
    _loaded: tuple[Draft, nn.Module] | None = None

    def saliency(self, draft: Draft) -> Saliency:
        return self._score(draft)[2]

    def network(self, draft: Draft) -> nn.Module:
        """The draft's network with its weights: what samples go through."""
        if draft.streamed is None:
            return draft.unet
        if self._loaded is None or self._loaded[0] is not draft:
            self.release()  # two of them would not fit
            self._loaded = (draft, draft.load(self.dtype))
        return self._loaded[1]

    @torch.no_grad()
    def show(self, draft: Draft, label: str) -> None:
        """Lets every sample through the draft's network, for the sake of whoever listens."""
        unet, done = self.network(draft), self.watch(label, len(self.batches))
        for batch in self.batches:
            predict(unet, batch)
            done()

    def release(self) -> None:
        """Frees the network that `network` has read."""
        self._loaded = None

    def refit(self, draft: Draft, parameter: str, kept: Tensor) -> Refit | None:
        """A weight with fewer inputs that makes up for those it lost, where the criterion knows how."""
        if draft.streamed is not None:
            return None  # asked for when the tensor is written, and by then what was seen of the inputs is gone
        criterion = self._score(draft)[1]
        return None if criterion is None else criterion.refit(parameter, kept)

    def _score(self, draft: Draft) -> tuple[Draft, Criterion | None, Saliency]:
        if self._scored is None or self._scored[0] is not draft:
            self._scored = (draft, *self._scored_now(draft))
        return self._scored

    def _scored_now(self, draft: Draft) -> tuple[Criterion | None, Saliency]:
        kind = CRITERIA[self.criterion]
        if draft.streamed is not None and not kind.looks:
            return None, score_streamed(self.criterion, draft.streamed, shapes(draft.unet), self.generator)
        if self.remembered is not None and draft.streamed is None and kind.looks and not kind.refits:
            network = self.network(draft)
            return None, self.remembered.saliency(
                self.criterion, network, self.generator, lambda: self._look(draft).saliency()
            )
        criterion = self._look(draft)
        # What is streamed is scored and let go: a criterion holds on to the network that it has seen.
        return None if criterion.frugal else criterion, criterion.saliency()

    def _look(self, draft: Draft) -> Criterion:
        """The criterion, once all samples have gone through the draft's network."""
        criterion = CRITERIA[self.criterion](self.network(draft), self.generator)
        criterion.frugal = draft.streamed is not None
        gather(self.network(draft), self.batches, [criterion], self.watch)
        return criterion


@dataclass(frozen=True)
class Operator:
    """`target` moves a spec towards the goal by this operator's part; `transplant` fills a network of that spec."""

    name: str
    title: str
    target: Callable[[StudentSpec, StudentSpec], StudentSpec]
    transplant: Callable[[Draft, StudentSpec, Bench], Transplant]

    def apply(self, draft: Draft, goal: StudentSpec, bench: Bench) -> tuple[Draft, Transplant]:
        """The next draft and how each of its tensors was made. The old draft is left as it was."""
        spec = self.target(draft.spec, goal)
        if spec == draft.spec:  # nothing to do: every tensor stays what it is
            transplant = begin(self.name, draft, spec)
            transplant.keep_rest()
        else:
            transplant = self.transplant(draft, spec, bench)
        return draft.become(spec, transplant), transplant


def begin(name: str, draft: Draft, spec: StudentSpec) -> Transplant:
    """An empty transplant from `draft` to a network of `spec`."""
    return Transplant(name, draft.state, shapes(skeleton(spec)), shapes(draft.unet))


def transformer_blocks(unet: nn.Module) -> dict[str, Any]:
    """Name -> every transformer block of the network, in forward order within each stage."""
    return {name: m for name, m in unet.named_modules() if name.rpartition(".")[0].endswith("transformer_blocks")}


def stage_of(name: str, stages: int) -> tuple[str, int] | None:
    """("down" | "up", stage) of a tensor or module, stages counted from the highest resolution; None elsewhere."""
    head, _, rest = name.partition(".")
    if head not in ("down_blocks", "up_blocks"):
        return None
    number = int(rest.partition(".")[0])
    return ("down", number) if head == "down_blocks" else ("up", stages - 1 - number)


def layers_of(spec: StudentSpec, side: str, stage: int) -> int:
    """Layers of a block; up blocks have one more than down blocks, for the skip of the stage above."""
    return spec.layers_per_block[stage] + (side == "up")


def block_name(spec: StudentSpec, side: str, stage: int) -> str:
    """The module of a stage on its way down or up."""
    return f"down_blocks.{stage}" if side == "down" else f"up_blocks.{spec.stages - 1 - stage}"


def copy_tree(transplant: Transplant, new: str, old: str, names: Iterable[str]) -> None:
    """Moves every tensor under the old prefix that the new network has under the new one."""
    for name in names:
        if name.startswith(f"{old}."):
            renamed = new + name[len(old) :]
            if renamed in transplant.wanted and renamed not in transplant.made:
                transplant.rename(renamed, name)
