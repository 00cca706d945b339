"""What `fuse` returns: the new graph, what was rewritten, and what almost was."""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import Graph, Node, computed_once, graph
from tinygrad_sm.fusion.missed import near_misses
from tinygrad_sm.fusion.patterns import Rule
from tinygrad_sm.fusion.plan import Found, Plan
from tinygrad_sm.fusion.snapshot import Snapshot
from tinygrad_sm.fusion.terms import Numbers
from tinygrad_sm.fusion.vocabulary import PRIMITIVE
from tinygrad_sm.notebook import Shown


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One place where operations were replaced.

    Attributes:
        rule: the rule that made the new node.
        because: the sentence that justifies it.
        steps: names of all rules that were applied on the way, in their order.
        matched: the nodes of `FuseResult.before` that it was found in.
        made: the new node, in `FuseResult.after`.
        operations_saved: how many operations fewer the graph has for it.
        bytes_saved: how many bytes fewer are kept for backward; negative if more.
    """

    rule: str
    because: str
    steps: tuple[str, ...]
    matched: tuple[Node, ...]
    made: Node
    operations_saved: int
    bytes_saved: int

    def __str__(self) -> str:
        nodes = ", ".join(_called(node) for node in self.matched)
        more = f" ({_bytes(self.bytes_saved)} less kept for backward)" if self.bytes_saved else ""
        return (
            f"{self.made.op}: {_count(len(self.matched), 'operation')} ({nodes}) became one node, "
            f"{_called(self.made)}, of shape {self.made.shape}; "
            f"{_count(self.operations_saved, 'operation')} saved{more}.\n"
            f"  Because: {self.because}\n"
            f"  Rules applied: {', '.join(dict.fromkeys(self.steps))}."
        )


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A place that almost matched.

    Attributes:
        rule: name of the rule that was meant.
        node: the node of `FuseResult.before` where it would have fitted.
        missing: which part was missing.
    """

    rule: str
    node: Node
    missing: str

    def __str__(self) -> str:
        return f"{_called(self.node)} is almost a match of {self.rule!r}: {self.missing}."


class FuseResult(Shown):
    """The outcome of `fuse`; `str()` tells the story.

    Attributes:
        output: the Tensor of the new graph, or the given one where nothing was rewritten.
    """

    def __init__(
        self, snapshot: Snapshot, plan: Plan, rules: tuple[Rule, ...], almost: tuple[Rule, ...]
    ) -> None:
        self._snapshot = snapshot
        self._plan = plan
        self._rules = rules
        self._almost = almost
        self._results = plan.carry_out(snapshot)
        self.output: Tensor = next(reversed(self._results.values()))

    def __repr__(self) -> str:
        return f"<FuseResult of {_count(len(self.rewrites), 'rewrite')}>"

    @computed_once
    def before(self) -> Graph:
        """The view of the given graph."""
        return graph(self._tensor(-1))

    @computed_once
    def after(self) -> Graph:
        """The view of the new graph."""
        return graph(self.output)

    @computed_once
    def unchanged(self) -> dict[int, int]:
        """The leaves and operations that stayed: ids in `before`, with those in `after`."""
        return {
            self._node(row).id: self.after.node_of(self._results[row]).id
            for row in sorted(self._plan.extraction.rows_kept)
        }

    @computed_once
    def rewrites(self) -> list[Rewrite]:
        """What was replaced, in the order of the given graph."""
        return [self._rewrite(found) for found in self._plan.found]

    @computed_once
    def near_misses(self) -> list[NearMiss]:
        """What stayed although a single condition kept a rule from fitting."""
        numbers = Numbers(self._snapshot.slots)
        found = near_misses(self._plan.extraction, self._rules, self._almost, numbers)
        return [NearMiss(rule, self._node(row), missing) for row, rule, missing in found]

    def __str__(self) -> str:
        lines = [str(rewrite) for rewrite in self.rewrites]
        if not lines:
            lines = ["Nothing to fuse was found."]
        else:
            before, after = (_operations(g) for g in (self.before, self.after))
            lines.insert(0, f"The graph had {_count(before, 'operation')} and now has {after}.")
        return "\n".join([*lines, *map(str, self.near_misses)])

    def _tensor(self, row: int) -> Tensor:
        return self._snapshot.tensors[row][0]

    def _node(self, row: int) -> Node:
        return self.before.node_of(self._tensor(row))

    def _node_with(self, op: str, node: Node) -> Node:
        """Return the node of an operation that may have been computed by way of several."""
        while op in PRIMITIVE and node.op != PRIMITIVE[op]:
            node = self.after.nodes[node.inputs[0]]
        return node

    def _rewrite(self, found: Found) -> Rewrite:
        return Rewrite(
            found.rule.name,
            found.rule.because,
            tuple(step.rule.name for step in found.steps),
            tuple(self._node(row) for row in found.matched),
            self._node_with(found.made.op, self.after.node_of(self._results[found.made])),
            found.operations_saved,
            found.bytes_saved,
        )


def _operations(g: Graph) -> int:
    return sum(bool(node.inputs) for node in g.nodes)


def _called(node: Node) -> str:
    return f"{node.op} #{node.id}" + (f" {node.name!r}" if node.name else "")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _bytes(n: int) -> str:
    return f"{n} bytes" if abs(n) < 10_000 else f"{n / 1024:.0f} KiB"
