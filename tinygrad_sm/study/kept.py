"""What a recorded computation keeps in memory until backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from tinygrad_sm.engine.view import Graph


@dataclass(frozen=True, slots=True)
class Kept:
    """An array that stays in memory until backward because an operation was recorded.

    Attributes:
        what: "result", or what it was saved as, e.g. ``"gradient of weight"``.
        shape: of the array.
        bytes: of the memory behind it.
    """

    what: str
    shape: tuple[int, ...]
    bytes: int


def kept_for_backward(view: Graph) -> tuple[tuple[Kept, ...], ...]:
    """Return what each node keeps in memory until backward, by node id.

    An operation keeps its result, whether a vjp will read it or not, and what it saved, such as
    the gradient that a fused loss found on its way (until a backward takes it). What is there
    already counts for nothing: leaves and constants, and views of another node's array.
    """
    known = {id(_owner(node.value)) for node in view.nodes if not node.inputs}
    found = []
    for node in view.nodes:
        kept = []
        if node.inputs:
            for what, array in (("result", node.value), *_arrays_in(node.params)):
                owner = _owner(array)
                if id(owner) not in known:
                    known.add(id(owner))
                    kept.append(Kept(what, array.shape, owner.nbytes))
        found.append(tuple(kept))
    return tuple(found)


def _owner(array: Any) -> Any:
    """The array whose memory this one looks at; itself, if it has its own."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


def _arrays_in(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays inside parameters, each with the name of the field that holds it."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _arrays_in(part, f"{name.removesuffix('s')} of {key}" if name else str(key))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _arrays_in(part, name)
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from _arrays_in(getattr(value, one.name), one.name)
