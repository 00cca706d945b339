"""`draw_fusion`: a graph before and after `fuse`, side by side in one picture.

What was matched is outlined on the left, with the rule and why it holds; what remains stands at
the same height on both sides; a broken arrow leads from what was replaced to what replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from tinygrad_sm.engine.view import CONSTANT, Graph, Node
from tinygrad_sm.errors import InvalidTypeError
from tinygrad_sm.fusion import FuseResult, Rewrite
from tinygrad_sm.study.diagnose import first_breakdown
from viz.drawing import Drawing
from viz.formula import SUBSCRIPTS, Formulas, letter, target_name, target_of
from viz.graphs import MOST_NODES, Gradients, box_of, breakdown_note
from viz.scene import Arrow, Box, Cluster, Scene
from viz.selection import is_drawn, same_inputs
from viz.values import memory, row, shape_text

_MOST_CHARACTERS = 16  # of an unnamed argument; two graphs have to fit side by side
_MOST_AROUND = 30  # nodes around the matches, of a graph that is too large to draw
_Side = Literal["before", "after"]


def draw_fusion(result: FuseResult) -> Drawing:
    """Draw what `fuse` found and made of it; where it found nothing, what was almost a match.

    Of a graph with too many nodes only those around the matches are drawn.

    Raises:
        InvalidTypeError: `result` is not a FuseResult.
    """
    if not isinstance(result, FuseResult):
        raise InvalidTypeError(f"draw_fusion needs what fuse returned; got {type(result).__name__}")
    return Drawing(_Fusion(result).scene(), str(result))


class _Fusion:
    """A FuseResult on its way to a Scene; keys of boxes are b and a with the node's id."""

    def __init__(self, result: FuseResult) -> None:
        self.result = result
        self.pairs = _pairs(result)
        self.made = {rewrite.made.id: rewrite for rewrite in result.rewrites}
        self.frames = _frames(result.rewrites)
        names = _names(result)
        formulas = Formulas(result.before, names["before"])
        titles = {self.pairs[i]: formulas.name(result.before.nodes[i]) for i in self.pairs}
        titles |= {r.made.id: formulas.name(r.matched[-1]) for r in result.rewrites}
        kept = {i: name for i, name in titles.items() if name}
        self.names: dict[_Side, dict[int, str]] = {
            "before": names["before"],
            "after": names["after"] | kept,
        }
        before = self._shown_before()
        self.shown: dict[_Side, set[int]] = {"before": before, "after": self._shown_after(before)}

    def scene(self) -> Scene:
        sides: tuple[_Side, ...] = ("before", "after") if self.result.rewrites else ("before",)
        boxes = [box for side in sides for box in self._boxes(side)]
        arrows = [arrow for side in sides for arrow in self._arrows(side)]
        return Scene(
            boxes=tuple(boxes),
            arrows=(*arrows, *self._becomes()),
            clusters={cluster.key: cluster for cluster in self._clusters()},
            caption=tuple(self._caption()),
            aligned=tuple(self._aligned()) if self.result.rewrites else (),
        )

    # Which nodes ----------------------------------------------------------------------------------

    def _shown_before(self) -> set[int]:
        """All nodes, or of too many those that were matched and those next to them."""
        before = self.result.before
        drawn = {node.id for node in before.nodes if is_drawn(node)}
        if len(drawn) <= MOST_NODES:
            return drawn
        places = [{n.id for n in rewrite.matched} for rewrite in self.result.rewrites]
        places += [{miss.node.id} for miss in self.result.near_misses]
        beside: dict[int, set[int]] = {node.id: {node.id} for node in before.nodes}
        for edge in before.edges:
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
        return shown or {before.output}

    def _shown_after(self, before: set[int]) -> set[int]:
        """What corresponds to `before`: what stayed, and what was made with what it reads."""
        shown = {self.pairs[i] for i in before if i in self.pairs}
        stayed = set(self.pairs.values())
        for rewrite in self.result.rewrites:
            if rewrite.matched[-1].id in before:
                new = {i for i in rewrite.made.inputs if i not in stayed}
                shown |= new | {rewrite.made.id}
        if len(before) == sum(map(is_drawn, self.result.before.nodes)):
            shown |= {node.id for node in self.result.after.nodes}
        return {i for i in shown if is_drawn(self.result.after.nodes[i])}

    # Boxes ----------------------------------------------------------------------------------------

    def _boxes(self, side: _Side) -> Iterator[Box]:
        view = self._view(side)
        swept = Gradients(view)
        formulas = Formulas(view, self.names[side], most=_MOST_CHARACTERS)
        broke = breakdown_note(first_breakdown(view))
        almost = self._near_misses() if side == "before" else {}
        for node in view.nodes:
            if node.id not in self.shown[side]:
                continue
            box = box_of(
                swept, node, formulas, key=_key(side, node.id), path=self._path(side, node),
                warnings=[broke[node.id]] if node.id in broke else [],
            )  # fmt: skip
            box = replace(
                box,
                rows=(),
                subtitle=shape_text(node.shape),
                warnings=box.warnings[:1] if box.alarming else (),  # no counts without values
            )
            box = self._with_near_misses(box, almost.get(node.id, []))
            if box.output:
                box = replace(box, rows=(row("value", node.value),))
            rewrite = self.made.get(node.id) if side == "after" else None
            if rewrite is not None:
                box = replace(box, kind="fused", remarks=(self._saved(rewrite),))
            yield box

    def _view(self, side: _Side) -> Graph:
        return self.result.before if side == "before" else self.result.after

    def _path(self, side: _Side, node: Node) -> tuple[str, ...]:
        frame = self.frames.get(node.id) if side == "before" else None
        return (side,) if frame is None else (side, f"match{frame}")

    def _near_misses(self) -> dict[int, list[str]]:
        """What almost matched, by id of the node."""
        found: dict[int, list[str]] = {}
        for miss in self.result.near_misses:
            found.setdefault(miss.node.id, []).append(f"almost {miss.rule!r}: {miss.missing}")
        return found

    def _with_near_misses(self, box: Box, said: list[str]) -> Box:
        """They stand out where nothing was fused; beside a success they are a remark."""
        if self.result.rewrites or not said:
            return replace(box, remarks=tuple(said))
        return replace(box, remarks=(), warnings=(*box.warnings, *said), alarming=True)

    def _saved(self, rewrite: Rewrite) -> str:
        """What one rewrite saved, under the node that it made."""
        count = rewrite.operations_saved
        parts = [f"{count} operation{'' if count == 1 else 's'} saved"]
        if rewrite.bytes_saved:
            less = "less" if rewrite.bytes_saved > 0 else "more"
            parts.append(f"{memory(abs(rewrite.bytes_saved))} {less} kept for backward")
        return ",\n".join(parts)

    def _clusters(self) -> Iterator[Cluster]:
        counts = [
            sum(bool(n.inputs) for n in g.nodes) for g in (self.result.before, self.result.after)
        ]
        if not self.result.rewrites:
            yield Cluster("before", f"nothing to fuse was found in {counts[0]} operations")
            return
        yield Cluster("before", f"before: {counts[0]} operations")
        yield Cluster("after", f"after: {counts[1]} operation{'' if counts[1] == 1 else 's'}")
        for i, rewrite in enumerate(self.result.rewrites):
            title = f"rule: {rewrite.rule}"
            yield Cluster(f"match{i}", title, marked=True, note=rewrite.because)

    # Arrows ---------------------------------------------------------------------------------------

    def _arrows(self, side: _Side) -> Iterator[Arrow]:
        shown = self.shown[side]
        for edge in self._view(side).edges:
            if edge.source in shown and edge.target in shown:
                yield Arrow(_key(side, edge.source), _key(side, edge.target))

    def _becomes(self) -> Iterator[Arrow]:
        for rewrite in self.result.rewrites:
            source, target = rewrite.matched[-1].id, rewrite.made.id
            if source in self.shown["before"] and target in self.shown["after"]:
                yield Arrow(_key("before", source), _key("after", target), tone="rewrite")

    def _aligned(self) -> Iterator[tuple[str, str]]:
        """Boxes at the same height: what stayed, and what was made beside the end of its match."""
        ends = {rewrite.matched[-1].id: rewrite.made.id for rewrite in self.result.rewrites}
        for before, after in (self.pairs | ends).items():
            if before in self.shown["before"] and after in self.shown["after"]:
                yield _key("before", before), _key("after", after)

    def _caption(self) -> Iterator[str]:
        total = sum(is_drawn(node) for node in self.result.before.nodes)
        if total > len(self.shown["before"]):
            shown = len(self.shown["before"])
            yield f"{shown} of {total} nodes are drawn: those around the matches."
        if self.result.rewrites:
            yield "Dashed frame: what was matched. Dashed arrow: to what replaces it."
            yield "What remains unchanged stands at the same height on both sides."
        if self.result.near_misses:
            yield "almost: a match of that rule, but for one thing that is missing."


def _key(side: _Side, id: int) -> str:
    return f"{side[0]}{id}"


def _names(result: FuseResult) -> dict[_Side, dict[int, str]]:
    """Names for what has none: targets are y and t, numbered if there are several; inputs c and x.

    What a matched loss reads beside the logits is its target.
    """
    losses = [r for r in result.rewrites if target_of(r.made) is not None]
    names: dict[_Side, dict[int, str]] = {"before": {}, "after": {}}
    for node in result.before.nodes:
        if not node.inputs and not node.name and is_drawn(node):
            names["before"][node.id] = letter(node)
    for i, rewrite in enumerate(sorted(losses, key=lambda r: r.matched[-1].id), 1):
        number = str(i).translate(SUBSCRIPTS) if len(losses) > 1 else ""
        read = {i for node in rewrite.matched for i in node.inputs}
        constants = [n for n in map(result.before.nodes.__getitem__, sorted(read))
                     if n.op == CONSTANT and is_drawn(n) and not n.name]  # fmt: skip
        if len(constants) == 1:
            names["before"][constants[0].id] = target_name(constants[0]) + number
        at = target_of(rewrite.made)
        assert at is not None
        target = result.after.nodes[at]
        if is_drawn(target) and not target.inputs and not target.name:
            names["after"][target.id] = target_name(target) + number
    return names


def _frames(rewrites: list[Rewrite]) -> dict[int, int]:
    """For each matched node the number of the match that it is framed with: the first."""
    frames: dict[int, int] = {}
    for i, rewrite in enumerate(rewrites):
        for node in rewrite.matched:
            frames.setdefault(node.id, i)
    return frames


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
