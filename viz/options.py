"""The options of pictures: declared, documented and checked here, for every function that draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict, get_args

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import Graph, Node
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown
from tinygrad_sm.loss.options import F, refuse_others
from tinygrad_sm.loss.options import takes as show_options
from viz.formula import legible
from viz.scene import Direction
from viz.style import SIZE, Look, ThemeName

Texts = Mapping[Node | Tensor | int, str]
"""Sentences about nodes, by Node, Tensor or node id."""

MOST_NODES = 60
"""A larger graph is cut: nobody could read it."""


class PictureOptions(TypedDict, total=False):
    """How a picture of graphs can be asked for.

    Attributes:
        title: a line above the picture; what stands between dollar signs in it is a formula.
        legend: whether lines below the picture explain its signs.
        digits: significant digits of numbers, from 1 to 17; of a large array's summary one less.
        font_size: of numbers and formulas, in points.
        theme: "light", "dark", "mono" (black on white), or "auto": light, and in an svg dark where
            its reader prefers that.
    """

    title: str
    legend: bool
    digits: int
    font_size: int
    theme: ThemeName


class DrawOptions(PictureOptions, total=False):
    """What the picture of one graph can be asked for.

    Attributes:
        values: whether the numbers that were computed are seen.
        gradients: whether the numbers that backward sent are seen.
        compact: give up the room of what is not seen. It is kept otherwise, so that the pictures
            of a graph before and after backward, with numbers and without, are laid out alike.
        dtypes: whether boxes say their dtype.
        direction: "TB" from top to bottom or "LR" from left to right.
        max_nodes: of a graph with more nodes first the groups are drawn as one box each, the
            innermost first; if that is not enough, only the first and the last nodes are drawn.
        labels: titles of boxes instead of their formulas, by Node, Tensor or node id; what stands
            between dollar signs is a formula.
        notes: sentences in the box of a node, by Node, Tensor or node id.
        warnings: sentences that mark a node, by Node, Tensor or node id.
    """

    values: bool
    gradients: bool
    compact: bool
    dtypes: bool
    direction: Direction
    max_nodes: int
    labels: Texts
    notes: Texts
    warnings: Texts


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Checked options: what was chosen, and defaults for the rest."""

    title: str = ""
    legend: bool = True
    digits: int = 4
    font_size: int = SIZE
    theme: ThemeName = "auto"
    values: bool = True
    gradients: bool = True
    compact: bool = False
    dtypes: bool = True
    direction: Direction = "TB"
    max_nodes: int = MOST_NODES
    labels: Texts | None = None
    notes: Texts | None = None
    warnings: Texts | None = None

    def __post_init__(self) -> None:
        for name in ("legend", "values", "gradients", "compact", "dtypes"):
            _one_of(name, getattr(self, name), (True, False))
        _one_of("direction", self.direction, get_args(Direction))
        _one_of("theme", self.theme, get_args(ThemeName))
        _within("digits", self.digits, 1, 17)
        _within("font_size", self.font_size, 6, 72)
        _within("max_nodes", self.max_nodes, 2)
        if not isinstance(self.title, str):
            raise InvalidTypeError(f"title must be text; got {type(self.title).__name__}")

    @property
    def look(self) -> Look:
        """What a format has to know."""
        return Look(self.theme, self.font_size)

    @property
    def headline(self) -> str:
        """The title, as far as it can be shown."""
        return legible(self.title)


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Choice)}


def takes(declared: Any) -> Callable[[F], F]:
    """Show a function's ``**options`` one by one, with defaults and meaning, to `help`."""

    def shown(function: F) -> F:
        function = show_options(declared, DEFAULTS)(function)
        if declared is not PictureOptions:  # which every other begins with
            shared = str(inspect.getdoc(PictureOptions)).partition("Attributes:\n")[2]
            function.__doc__ = f"{function.__doc__}\n{shared}"
        return function

    return shown


def chosen(function: Callable[..., Any], options: Mapping[str, Any]) -> Choice:
    """Check the options of a call.

    Raises:
        InvalidTypeError: an option that the function does not take, or one of the wrong type.
        InvalidValueError: a value that is not allowed.
    """
    refuse_others(function, options.keys() - inspect.signature(function).parameters.keys())
    return Choice(**options)


def texts_by_node(name: str, given: Texts | None, view: Graph) -> dict[int, list[str]]:
    """The texts of `labels`, `notes` or `warnings` by node id, as far as they can be shown."""
    found: dict[int, list[str]] = {}
    if not isinstance(given, Mapping | None):
        raise InvalidTypeError(
            f"{name} must be a dictionary from Nodes, Tensors or node ids to text; "
            f"got {type(given).__name__}"
        )
    for key, text in (given or {}).items():
        if not isinstance(text, str):
            raise InvalidTypeError(f"{name} must be text; got {type(text).__name__}")
        found.setdefault(_id_of(name, view, key), []).append(legible(text))
    return found


def _id_of(name: str, view: Graph, key: Any) -> int:
    if isinstance(key, Tensor):
        return view.node_of(key).id
    id = key.id if isinstance(key, Node) else key
    if not isinstance(id, int):
        raise InvalidTypeError(
            f"{name} must belong to a Node, a Tensor or a node id; got {type(key).__name__}"
        )
    if not 0 <= id < len(view.nodes):
        raise InvalidValueError(f"{name} must belong to nodes of the graph; there is no node {id}")
    return id


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value is x or (isinstance(x, str) and value == x) for x in allowed):
        *first, last = map(repr, allowed)
        raise InvalidValueError(f"{name} must be {', '.join(first)} or {last}; got {shown(value)}")


def _within(name: str, value: Any, least: int, most: int | None = None) -> None:
    if type(value) is not int or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidValueError(f"{name} must be an integer {limits}; got {shown(value)}")
