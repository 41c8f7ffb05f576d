"""One error for all layers of a network that cannot be normalised, by class, with what the user can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...storage.errors import InputError
from ..graph import Graph, Node
from ..graph.kinds import has_foreign_weights, is_activation

__all__ = ["Refusal", "all_refused", "refuse_foreign_weights", "refused"]

N_NAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why one layer cannot be normalised, and what helps."""

    name: str
    layer_name: str
    type: str
    reason: str
    remedy: str
    """``{names}`` stands for what is to be named, ``{layer}`` for the layer."""


def refused(node: Node, sentence: str, *, reason: str, remedy: str) -> InputError:
    """Return the error for one layer: ``sentence`` says it of this layer, ``reason`` of any of its class."""
    refusal = Refusal(
        name=node.name, layer_name=node.layer_name, type=node.type, reason=reason, remedy=remedy
    )
    text = f"{sentence}: {remedy.format(names=[node.layer_name], layer=repr(node.layer_name))}"
    return InputError(text, layer=node.name, layer_type=node.type, refusal=refusal)


def refuse_foreign_weights(node: Node) -> None:
    """Raise InputError for a layer whose weights are not those that the updates know."""
    if not has_foreign_weights(node.operation):
        return
    function = getattr(node.operation, "activation", None)
    if is_activation(function):
        is_a_layer = f"is a layer with weights ({type(function).__name__})"
        raise refused(
            node,
            f"the activation function of the layer {node.name!r} {is_a_layer}",
            reason=f"the activation function {is_a_layer}",
            remedy="put it behind {layer} as a layer of its own",
        )
    why = "quantised or has LoRA weights, which cannot be rescaled"
    raise refused(
        node,
        f"the layer {node.name!r} is {why}",
        reason=f"is {why}",
        remedy="normalise the network before that step, or set normalize.pin = {names}",
    )


def all_refused(graph: Graph, errors: Sequence[InputError]) -> InputError:
    """Return one error for all: the only one, or a line for each class and reason."""
    refusals: list[Refusal] = [error.refusal for error in errors]
    if len({refusal.layer_name for refusal in refusals}) == 1:
        return errors[0]
    groups: dict[tuple[str, str, str], list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.type, refusal.reason, refusal.remedy), []).append(refusal)
    lines = [_line(graph, group) for group in groups.values()]
    pinned = [
        name
        for group in groups.values()
        if "normalize.pin = " in group[0].remedy
        for name in _offered(graph, group)
    ]
    end = f"\nto pin all of them set normalize.pin = {pinned}" if len(pinned) > 1 and len(lines) > 1 else ""
    return InputError(
        f"{len(refusals)} layers cannot be normalised as they are:\n  " + "\n  ".join(lines) + end,
        layer=refusals[0].name,
        layers=tuple(refusal.name for refusal in refusals),
        pin=tuple(pinned),
    )


def _line(graph: Graph, group: Sequence[Refusal]) -> str:
    names = ", ".join(repr(refusal.name) for refusal in group[:N_NAMES])
    more = f" and {len(group) - N_NAMES} more" if len(group) > N_NAMES else ""
    first = group[0]
    return (
        f"{len(group)} of {first.type} ({names}{more}): {first.reason}; "
        f"{first.remedy.format(names=_offered(graph, group), layer='its layer')}"
    )


def _offered(graph: Graph, group: Sequence[Refusal]) -> list[str]:
    """Return the class where all of its layers are meant, else the layers."""
    names = list(dict.fromkeys(refusal.layer_name for refusal in group))
    kind = group[0].type
    of_class = {node.layer_name for node in graph.nodes if node.type == kind}
    return [kind] if len(names) > 1 and of_class == set(names) else names
