"""Which channels, heads and neurons stand or fall together: torch-pruning's dependency graph, made to fit U-Nets.

torch-pruning (Fang et al., arXiv 2301.12900) traces the network and finds the coupled tensors; it is not used to cut
them, because a network cut in place no longer agrees with its config (`Downsample2D.channels`, `from_pretrained`).
Cutting means building a new network and slicing into it, and what is left for us to mend is how groups are read:
- the two halves of GEGLU's projection come as twice as many free channels: they are paired to one neuron; and all
  neurons are alike, so the twin that is traced has few (10,240 of them took most of the time at SDXL's size);
- an attention's query, key, value and output come as 64-channel soup: they are tied into heads, or where a student has
  as many heads as its teacher and thinner ones, into the dimensions within each head (`within_heads`);
- repeated key/value heads make torch-pruning divide by zero: the graph is traced on a twin with all heads;
- skip connections land at an offset behind a concatenation: members carry their own indices;
- a middle block of one residual block (SSD-1B) exists in diffusers' plain class alone: the twin borrows it from there;
- channels are normed 32 groups at a time: groups that feed a GroupNorm say so, and are cut evenly (see select.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from compress.cost import empty, example_inputs
from students.spec import NONE, RESNET, StudentSpec

CHANNEL, HEAD, NEURON = "channel", "head", "neuron"
DIMENSION = "dimension"  # of a head
GEGLU = ".net.0.proj"  # a feed-forward's first layer


@dataclass(frozen=True)
class Member:
    """Along axis `axis` of a parameter, `index_us[u]` are the entries that belong to unit u of the group."""

    parameter: str
    axis: int
    index_us: Tensor


@dataclass(frozen=True)
class Group:
    """Units that must be kept or dropped together in every member. Of each of `norm_groups` equal runs of units as many
    stay: those that a GroupNorm norms together, or the dimensions of one head; 0 where units stay wherever they are."""

    name: str
    kind: str
    units: int
    members: tuple[Member, ...]
    norm_groups: int = 0

    @property
    def unit_size(self) -> int:
        """Entries a unit has in the first member: 1 for a channel, 64 for a head, 2 for a GEGLU neuron."""
        return self.members[0].index_us.shape[1]


@lru_cache(maxsize=16)
def find_groups(spec: StudentSpec, neurons_only: bool = False) -> tuple[Group, ...]:
    """Every group of a network of `spec` that can be made narrower. Works on shapes: a twin without weights is traced
    on the meta device, so SDXL takes seconds and no memory. `neurons_only` leaves out all but the feed-forwards'."""
    import torch_pruning

    twin = _twin(spec)
    rows = 2 ** (spec.stages - 1) * 2
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = example_inputs(spec, rows, rows, tokens=8, device="meta")
        graph = torch_pruning.DependencyGraph().build_dependency(twin, example_inputs=inputs)
    modules = {module: name for name, module in twin.named_modules()}
    traced: dict[str, list[Member]] = {}
    covered: set[str] = set()
    for name, root in twin.named_modules():
        if not _can_be_root(name, root) or f"{name}.weight" in covered:
            continue
        if neurons_only and not name.endswith(GEGLU):
            continue
        group = _trace(graph, root)
        members = [member for item in group for member in _members(item, modules)]
        covered.update(m.parameter for m in members if m.axis == 0 and m.index_us.numel() == _extent(twin, m))
        traced.setdefault(_group_name(name), []).extend(members)
    return tuple(_shape_group(name, members, twin, spec) for name, members in traced.items())


def within_heads(group: Group) -> Group:
    """The same attention, its units being the dimensions of its heads, of which each head keeps as many.

    ValueError where heads share keys and values: those would have to keep the same dimensions in all of them.
    """
    if group.kind != HEAD or not any(m.parameter.endswith(".to_k.weight") for m in group.members):
        raise ValueError(f"{group.name}: heads that share keys and values cannot grow thinner")
    members = tuple(replace(member, index_us=member.index_us.reshape(-1, 1)) for member in group.members)
    return Group(group.name, DIMENSION, group.units * group.unit_size, members, group.units)


def _twin(spec: StudentSpec) -> Any:
    """A network without weights whose widths hang together as those of `spec` do, and which torch-pruning can trace."""
    middle = NONE if spec.middle == RESNET else spec.middle
    twin: Any = empty(replace(spec, kv_heads=None, qk_norm=False, ff_mult=1, plain=False, middle=middle))
    if spec.middle == RESNET:
        twin.mid_block = empty(spec).mid_block
    return twin.requires_grad_(True)


def _can_be_root(name: str, module: nn.Module) -> bool:
    if name == "conv_out" or name.startswith("encoder_hid_proj"):
        return False  # the latent's channels and the text's width are given from outside
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _trace(graph: Any, root: Any) -> Any:
    prune = graph.get_pruner_of_module(root).prune_out_channels
    return graph.get_pruning_group(root, prune, list(range(len(root.weight))))


def _members(item: Any, modules: dict[nn.Module, str]) -> Iterator[Member]:
    """The parameters behind one entry of a torch-pruning group; `root_idxs` says which unit each index belongs to."""
    module = item.dep.target.module
    if not isinstance(module, (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm)):
        return  # the graph's own nodes for reshapes, splits and sums hold no weights
    roots = torch.tensor(item.root_idxs)
    # One stream may enter a concatenation twice (the middle block's input and output): then a unit has two entries.
    index_us = torch.tensor(item.idxs)[torch.argsort(roots, stable=True)].reshape(len(roots.unique()), -1)
    grouped = isinstance(module, nn.Conv2d) and module.groups > 1
    reads = item.dep.handler.__name__.endswith("in_channels") and not grouped
    yield Member(f"{modules[module]}.weight", 1 if reads else 0, index_us)
    if not reads and module.bias is not None:
        yield Member(f"{modules[module]}.bias", 0, index_us)


def _extent(model: nn.Module, member: Member) -> int:
    return model.get_parameter(member.parameter).shape[member.axis]


def _group_name(root: str) -> str:
    """Query, key and value share the name of their attention; GEGLU's projection that of its feed-forward."""
    for suffix in (".to_q", ".to_k", ".to_v", GEGLU):
        if root.endswith(suffix):
            return root.removesuffix(suffix)
    return root


def _shape_group(name: str, members: list[Member], twin: nn.Module, spec: StudentSpec) -> Group:
    unique = {(member.parameter, member.axis, int(member.index_us[0, 0])): member for member in members}
    members = list(unique.values())
    if name.endswith((".attn1", ".attn2")):
        return _head_group(name, members, twin, spec)
    if name.endswith(".ff"):
        return _neuron_group(name, members, spec.ff_mult)
    normed = [m for m in members if isinstance(twin.get_submodule(m.parameter.rpartition(".")[0]), nn.GroupNorm)]
    return Group(name, CHANNEL, len(members[0].index_us), tuple(members), spec.norm_groups if normed else 0)


def _head_group(name: str, members: list[Member], twin: nn.Module, spec: StudentSpec) -> Group:
    heads = int(twin.get_submodule(name).heads)  # type: ignore[arg-type]
    if spec.kv_heads is not None:  # shared keys and values belong to no single head
        members = [m for m in members if not m.parameter.endswith((".to_k.weight", ".to_v.weight"))]
    blocks = tuple(replace(m, index_us=m.index_us.reshape(heads, -1)) for m in members)
    return Group(name, HEAD, heads, blocks)


def _neuron_group(name: str, members: list[Member], ff_mult: int) -> Group:
    """The twin has one neuron where the network has `ff_mult`: neuron u is row u of the values and of the gates, and
    column u of what reads them."""
    traced = len(members[0].index_us) // 2
    neuron_u = torch.arange(traced * ff_mult)
    paired = []
    for member in members:
        in_order = torch.equal(member.index_us.flatten(), torch.arange(member.index_us.numel()))
        assert in_order and member.index_us.numel() in (traced, 2 * traced), f"{name} is no GEGLU"
        halves = member.index_us.numel() // traced
        index_us = torch.stack([neuron_u + half * len(neuron_u) for half in range(halves)], dim=1)
        paired.append(replace(member, index_us=index_us))
    return Group(name, NEURON, len(neuron_u), tuple(paired))
