"""`draw_fusion`: a graph before and after `fuse`, side by side in one picture.

What was matched is outlined on the left, with the rule and why it holds; what remains stands at
the same height on both sides; a broken arrow leads from what was replaced to what replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

from tinygrad_sm.engine.view import CONSTANT, Node
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.fusion import FuseResult, Rewrite
from viz.drawing import Drawing
from viz.formula import SUBSCRIPTS, is_loss, is_nameless, letter, target_name, target_of
from viz.options import MOST_NODES, Choice, PictureOptions, chosen, takes
from viz.scene import Arrow, Box, Cluster, Scene
from viz.sketch import Sketch, same_inputs
from viz.values import memory, shape_text

_MOST_CHARACTERS = 16  # of an unnamed argument; two graphs have to fit side by side
_MOST_AROUND = 30  # nodes around the matches, of a graph that is too large to draw


@takes(PictureOptions)
def draw_fusion(result: FuseResult, **options: Unpack[PictureOptions]) -> Drawing:
    """Draw what `fuse` found and made of it; where it found nothing, what was almost a match.

    Of a graph with too many nodes only those around the matches are drawn.

    Raises:
        InvalidTypeError: `result` is not a FuseResult, or an option is of a wrong type.
        InvalidValueError: an option is not possible.
    """
    choice = chosen(draw_fusion, options)
    if not isinstance(result, FuseResult):
        raise InvalidTypeError(f"draw_fusion needs what fuse returned; got {type(result).__name__}")
    return Drawing(_Fusion(result, choice).scene(), str(result), choice.look)


class _Fusion:
    """A FuseResult on its way to a Scene.

    Attributes:
        before, after: the two graphs.
        pairs: the nodes that stayed: ids before, with those after.
        ends: the last node of each match, with what was made of it.
        made: what rewrote a node after.
        frames: the cluster around what was matched, by id of the node before: the first match's.
        remarks: what almost matched beside a success, by id of the node before.
    """

    def __init__(self, result: FuseResult, choice: Choice) -> None:
        self.result = result
        self.choice = choice
        self.pairs = _pairs(result)
        self.ends = {rewrite.matched[-1].id: rewrite.made.id for rewrite in result.rewrites}
        self.made = {rewrite.made.id: rewrite for rewrite in result.rewrites}
        self.frames: dict[int, tuple[str]] = {}
        for i, rewrite in enumerate(result.rewrites):
            for node in rewrite.matched:
                self.frames.setdefault(node.id, (f"match{i}",))
        names, new_names = _names(result)
        shared: Any = {"choice": choice, "most": _MOST_CHARACTERS}
        self.before = Sketch(result.before, "b", names=names, **shared)
        for i, after in (self.pairs | self.ends).items():
            if name := self.before.formulas.name(result.before.nodes[i]):
                new_names[after] = name
        self.after = Sketch(result.after, "a", names=new_names, **shared)
        self.before.mark_breakdown()
        self.after.mark_breakdown()
        self.remarks: dict[int, list[str]] = {}
        said = self.remarks if result.rewrites else self.before.marks  # alone they stand out
        for miss in result.near_misses:
            text = f"almost {miss.rule!r}: {miss.missing}"
            said.setdefault(miss.node.id, []).append(text)
        self.total = len(self.before.keys)
        shown = self._shown_before()
        self.after.show(self._shown_after(shown) if result.rewrites else ())
        self.before.show(shown)

    def scene(self) -> Scene:
        boxes = [self._box_before(node) for node in self.before.boxed()]
        boxes += [self._box_after(node) for node in self.after.boxed()]
        arrows = [*self.before.arrows(), *self.after.arrows()]
        arrows += [Arrow(old, new, tone="rewrite") for old, new in self._keys(self.ends)]
        return Scene(
            boxes=tuple(boxes),
            arrows=tuple(arrows),
            clusters={cluster.key: cluster for cluster in self._clusters()},
            caption=tuple(self._caption()),
            aligned=tuple(self._keys(self.pairs | self.ends)),
            title=self.choice.headline,
        )

    def _keys(self, pairs: dict[int, int]) -> Iterator[tuple[str, str]]:
        """The keys of nodes before and after, where both are shown."""
        for old, new in pairs.items():
            if old in self.before.keys and new in self.after.keys:
                yield self.before.keys[old], self.after.keys[new]

    # Which nodes ----------------------------------------------------------------------------------

    def _shown_before(self) -> set[int]:
        """All nodes, or of too many those that were matched and those next to them."""
        drawn = set(self.before.keys)
        if len(drawn) <= MOST_NODES:
            return drawn
        places = [{n.id for n in rewrite.matched} for rewrite in self.result.rewrites]
        places += [{miss.node.id} for miss in self.result.near_misses]
        beside: dict[int, set[int]] = {node.id: {node.id} for node in self.result.before.nodes}
        for edge in self.result.before.edges:
            beside[edge.source].add(edge.target)
            beside[edge.target].add(edge.source)
        shown: set[int] = set()
        for place in places:
            around = drawn & set[int]().union(*(beside[i] for i in place))
            if len(shown | around) > _MOST_AROUND:
                if not shown:  # of a single match that is too large its end
                    shown = set(sorted(around)[-_MOST_AROUND:])
                break
            shown |= around
        return shown or {self.result.before.output}

    def _shown_after(self, before: set[int]) -> set[int]:
        """What corresponds to `before`: what stayed, and what was made with what it reads."""
        if len(before) == self.total:
            return set(self.after.keys)
        shown = {self.pairs[i] for i in before if i in self.pairs}
        stayed = set(self.pairs.values())
        for rewrite in self.result.rewrites:
            if rewrite.matched[-1].id in before:
                shown |= {rewrite.made.id, *rewrite.made.inputs} - stayed
        return shown

    # Boxes ----------------------------------------------------------------------------------------

    def _box_before(self, node: Node) -> Box:
        path = ("before", *self.frames.get(node.id, ()))
        return _box(self.before, node, path, remarks=tuple(self.remarks.get(node.id, ())))

    def _box_after(self, node: Node) -> Box:
        rewrite = self.made.get(node.id)
        given = {} if rewrite is None else {"kind": "fused", "remarks": (_saved(rewrite),)}
        return _box(self.after, node, ("after",), **given)

    def _clusters(self) -> Iterator[Cluster]:
        before, after = (
            sum(bool(node.inputs) for node in view.nodes)
            for view in (self.result.before, self.result.after)
        )
        if not self.result.rewrites:
            yield Cluster("before", f"nothing to fuse was found in {before} operations")
            return
        yield Cluster("before", f"before: {before} operations")
        yield Cluster("after", f"after: {after} operation{'' if after == 1 else 's'}")
        for i, rewrite in enumerate(self.result.rewrites):
            title = f"rule: {rewrite.rule}"
            yield Cluster(f"match{i}", title, marked=True, note=rewrite.because)

    def _caption(self) -> Iterator[str]:
        shown = len(self.before.keys)
        if self.total > shown:
            yield f"{shown} of {self.total} nodes are drawn: those around the matches."
        if not self.choice.legend:
            return
        if self.result.rewrites:
            yield "Dashed frame: what was matched. Dashed arrow: to what replaces it."
            yield "What remains unchanged stands at the same height on both sides."
        if self.result.near_misses:
            yield "almost: a match of that rule, but for one thing that is missing."


def _box(sketch: Sketch, node: Node, path: tuple[str, ...], **given: Any) -> Box:
    """A box without values, but for the output."""
    output = node.id == sketch.graph.output
    return sketch.box(
        node,
        path=path,
        subtitle=shape_text(node.shape),
        rows=(sketch.row("value", node.value),) if output else (),
        warnings=tuple(sketch.marks.get(node.id, ())),
        output=output,
        **({"remarks": ()} | given),
    )


def _saved(rewrite: Rewrite) -> str:
    """What one rewrite saved, under the node that it made."""
    count = rewrite.operations_saved
    parts = [f"{count} operation{'' if count == 1 else 's'} saved"]
    if rewrite.bytes_saved:
        less = "less" if rewrite.bytes_saved > 0 else "more"
        parts.append(f"{memory(abs(rewrite.bytes_saved))} {less} kept for backward")
    return ",\n".join(parts)


def _names(result: FuseResult) -> tuple[dict[int, str], dict[int, str]]:
    """Names before and after for what has none: targets y and t, with a number if need be; c and x.

    What a matched loss reads beside the logits is its target.
    """
    inputs = [node for node in result.before.nodes if is_nameless(node)]
    before = {node.id: letter(node) for node in inputs}
    after: dict[int, str] = {}
    losses = [rewrite for rewrite in result.rewrites if is_loss(rewrite.made)]
    for i, rewrite in enumerate(sorted(losses, key=lambda r: r.matched[-1].id), 1):
        number = str(i).translate(SUBSCRIPTS) if len(losses) > 1 else ""
        read = {i for node in rewrite.matched for i in node.inputs}
        constants = [node for node in inputs if node.op == CONSTANT and node.id in read]
        if len(constants) == 1:
            before[constants[0].id] = target_name(constants[0]) + number
        target = target_of(result.after, rewrite.made)
        if is_nameless(target):
            after[target.id] = target_name(target) + number
    return before, after


def _pairs(result: FuseResult) -> dict[int, int]:
    """The nodes that stayed, constants among them: ids before, with those after."""
    pairs = dict(result.unchanged)
    before, after = result.before.nodes, result.after.nodes
    for mine, theirs in result.unchanged.items():
        pairs.update(zip(before[mine].inputs, after[theirs].inputs, strict=True))
    taken = set(pairs.values())
    for theirs, mine in same_inputs(result.before, result.after).items():
        if theirs not in taken:
            pairs.setdefault(mine, theirs)
    return pairs
