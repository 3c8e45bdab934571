"""Layer groups by their names: where they stand in the network, how a page calls them, and who they were before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
_BLOCKS = ("conv_in", "time", "add", "encoder", "down", "mid", "up")  # as a sample passes through them
_WITHIN = {"proj_in": 0, "transformer_blocks": 1, "proj_out": 2}
_BRIEF = (
    ("attentions.", "attn "),
    ("resnets.", "res "),
    ("transformer_blocks.", ""),
    ("samplers.0.conv", "sampler"),
    (".", " · "),
)


def split(group: str) -> tuple[str, str]:
    """(block, layer within it): "down_blocks.2.attentions.0.proj_in" -> ("down_blocks.2", "attentions.0.proj_in")."""
    names = group.split(".")
    depth = 2 if len(names) > 2 and names[1].isdigit() else 1
    return ".".join(names[:depth]), ".".join(names[depth:])


def brief(group: str) -> str:
    """A group's place within its block, shorter: "attentions.0.transformer_blocks.1.ff" -> "attn 0 · 1 · ff"."""
    layer = split(group)[1] or group
    for long, short in _BRIEF:
        layer = layer.replace(long, short)
    return layer


def network_order(group: str) -> tuple[object, ...]:
    """Sorts groups as a sample meets them: by block, layer, residual block before transformer, place in it."""
    block, layer = split(group)
    number = block.rpartition(".")[2]
    parts = layer.split(".")
    in_layer = parts[0] in ("resnets", "attentions")
    count = int(parts[1]) if in_layer and len(parts) > 1 and parts[1].isdigit() else 1 << 16  # samplers come last
    place = next((place for place, start in enumerate(_BLOCKS) if block.startswith(start)), len(_BLOCKS))
    ranks = tuple(_rank(part) for part in parts[1 + in_layer :])
    return place, int(number) if number.isdigit() else 0, block, count, parts[0] != "resnets", ranks


def _rank(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdigit() else (_WITHIN.get(part, len(_WITHIN)), part)


def by_block(groups: Mapping[str, T]) -> dict[str, list[tuple[str, T]]]:
    """Block -> [(group, its value)], blocks and groups in the network's order."""
    found: dict[str, list[tuple[str, T]]] = {}
    for group in sorted(groups, key=network_order):
        found.setdefault(split(group)[0], []).append((group, groups[group]))
    return found


def in_order(groups: Iterable[str]) -> list[str]:
    """Each group once, in the network's order."""
    return sorted(dict.fromkeys(groups), key=network_order)


def before(group: str, kept: Mapping[str, Sequence[int]]) -> str:
    """What the teacher calls a group of a student that lost layers. `kept`: a list of modules -> the teacher's numbers
    of those that stayed; a transformer's blocks are listed under the teacher's name of the transformer."""
    had: list[str] = []
    for part in group.split("."):
        numbers = kept.get(".".join(had), ()) if part.isdigit() else ()
        had.append(str(numbers[int(part)]) if numbers and int(part) < len(numbers) else part)
    return ".".join(had)
