"""The options of a command that say how its pictures look: those of `viz`, by the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click

from tinygrad_sm.cli.options import Adds, all_of, given
from tinygrad_sm.engine.view import Graph
from tinygrad_sm.errors import InvalidValueError

_EVERY = all_of(
    click.option("--title", metavar="TEXT", help="A line above the picture."),
    click.option("--legend/--no-legend", default=None, help="Whether its signs are explained."),
    click.option("--theme", metavar="NAME", help="auto, light, dark or mono."),
    click.option("--digits", type=int, metavar="N", help="Significant digits of numbers."),
    click.option("--font-size", type=int, metavar="N", help="In points."),
)
_ONE_GRAPH = all_of(
    click.option("--values/--no-values", default=None, help="Whether values are seen."),
    click.option("--gradients/--no-gradients", default=None, help="Whether gradients are."),
    click.option("--compact", is_flag=True, default=None, help="Give up the room of what is not."),
    click.option("--dtypes/--no-dtypes", default=None, help="Whether boxes say their dtype."),
    click.option("--direction", metavar="TB|LR", help="From top to bottom or left to right."),
    click.option("--max-nodes", type=int, metavar="N", help="Draw a larger graph in part."),
    *(
        click.option(
            f"--{what}", f"{what}s", multiple=True, metavar="NODE=TEXT",
            help=f"{meaning}, by a node's name or number; may be given more than once.",
        )
        for what, meaning in (
            ("label", "A title instead of the formula"), ("note", "A sentence"),
            ("warning", "A sentence that stands out"),
        )
    ),
)  # fmt: skip
OF_ONE_GRAPH = ("values", "gradients", "compact", "dtypes", "direction", "max_nodes", "labels",
                "notes", "warnings")  # fmt: skip
OF_EVERY = ("title", "legend", "theme", "digits", "font_size")


def look_options(*, one_graph: bool = False) -> Adds:
    """Add the options to a command, which gets those that were given as the dictionary `look`."""
    names = (*OF_EVERY, *OF_ONE_GRAPH) if one_graph else OF_EVERY

    def gathering(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def gathered(**values: Any) -> Any:
            chosen = {name: values.pop(name) for name in names}
            look = {name: value for name, value in chosen.items() if value not in (None, ())}
            if look and values.get("folder", "") is None:
                raise InvalidValueError(f"{min(given(look))} goes with --output")
            return command(look=look, **values)

        return gathered

    return all_of(_EVERY, _ONE_GRAPH, gathering) if one_graph else all_of(_EVERY, gathering)


def for_graph(look: Mapping[str, Any], view: Graph) -> dict[str, Any]:
    """The same options with the nodes that labels, notes and warnings belong to.

    Raises:
        InvalidValueError: a text has no node, or the graph has no such node.
    """
    found = dict(look)
    for name in ("labels", "notes", "warnings"):
        if name in look:
            found[name] = dict(_pair(f"--{name[:-1]}", text, view) for text in look[name])
    return found


def _pair(option: str, text: str, view: Graph) -> tuple[int, str]:
    node, equals, sentence = text.partition("=")
    if not equals:
        raise InvalidValueError(
            f"{option} must be NODE=TEXT, as in {option} p=softmax; got {text!r}"
        )
    if node.isdecimal():
        return int(node), sentence
    by_name = {x.name: x.id for x in view.nodes if x.name}
    if node not in by_name:
        raise InvalidValueError(
            f"{option}: no node is called {node!r}; there are {', '.join(by_name)}, and the "
            f"numbers from 0 to {len(view.nodes) - 1}"
        )
    return by_name[node], sentence
