"""A Scene as Graphviz source."""

from __future__ import annotations

from itertools import pairwise

import graphviz

from viz.labels import Labels, table
from viz.rendering import QUICKLY
from viz.scene import Arrow, Box, Cluster, Path, Scene
from viz.style import BOXES, CLUSTERS, FONT, LINES, Look

_FAR = 6000  # ranks that all arrows cross together; more take Graphviz's best layout minutes
_BARE = {"shape": "plaintext", "margin": "0"}


def dot_source(scene: Scene, look: Look) -> str:
    """Write a Scene as DOT; the same Scene gives the same bytes."""
    return str(_DotWriter(scene, look).digraph.source)


class _DotWriter:
    """A Scene on its way to DOT.

    Attributes:
        framed: arrows whose label is a node of its own, by position, and the cluster around it.
    """

    def __init__(self, scene: Scene, look: Look) -> None:
        self.scene = scene
        self.labels = Labels(scene, look)
        self.colours = self.labels.colours
        self.sideways = self.labels.sideways
        depth = _depths(scene)
        self.framed = {} if self.sideways else _labels_in_frames(scene, depth)
        self.digraph = graphviz.Digraph("tinygrad_sm")
        self._write_attributes()
        far = sum(abs(depth[arrow.target] - depth[arrow.source]) for arrow in scene.arrows)
        if far > _FAR:
            self.digraph.attr(**QUICKLY)
        self._write_titled()
        self._write_ranks()
        for i, arrow in enumerate(scene.arrows):
            self._write_arrow(arrow, f"label{i}" if i in self.framed else "")

    def _write_attributes(self) -> None:
        text = {"fontname": FONT, "fontcolor": self.colours["ink"]}
        small = text | {"fontsize": str(self.labels.small)}
        self.digraph.attr(
            rankdir=self.scene.direction, ranksep="0.2" if self.sideways else "0.35",
            nodesep="0.25", pad="0.1", bgcolor=self.colours["paper"],
            label=self.labels.below(), labelloc="b", labeljust="l", **small,
        )  # fmt: skip
        size = str(self.labels.size)
        self.digraph.attr("node", fontsize=size, margin="0.05,0.04", width="0", height="0", **text)
        self.digraph.attr("edge", arrowsize="0.7", **small)
        if self.scene.aligned:
            self.digraph.attr(newrank="true")  # else no rank may hold boxes of two clusters

    def _write_titled(self) -> None:
        """Write everything under the title, if there is one."""
        headline = self.labels.headline()
        if not headline:
            self._write_level(self.digraph, ())
        elif self.scene.aligned:  # a frame around it might exchange what is side by side
            caption = self.labels.below()[1:-1]
            below = f'<TD ALIGN="LEFT" BALIGN="LEFT">{caption}</TD>'
            self.digraph.attr(label=table([*headline, [below]]), labelloc="t")
            self._write_level(self.digraph, ())
        else:
            with self.digraph.subgraph(name="cluster_title") as titled:
                titled.attr(label=table(headline), labelloc="t", penwidth="0", margin="4")
                self._write_level(titled, ())

    def _write_level(self, digraph: graphviz.Digraph, path: Path) -> None:
        """Write the boxes right inside one cluster, and the clusters inside it, in order."""
        for box, cluster in self.scene.inside(path):
            if cluster is None:
                style = self._box_style(box)
                digraph.node(box.key, label=self.labels.box(box), id=f"node-{box.key}", **style)
                continue
            with digraph.subgraph(name=f"cluster_{cluster.key}") as inner:
                inner.attr(
                    label="" if cluster.note else self.labels.heading(cluster),
                    labelloc="t",
                    labeljust="l",
                    margin="6" if self.sideways else "12",
                    color=self.colours["ink" if cluster.marked else "frame"],
                    **CLUSTERS[cluster.marked],
                )
                if cluster.note:
                    self._write_note(inner, cluster, box.key)
                self._write_level(inner, (*path, cluster.key))
        for i, place in self.framed.items():
            if place == path:
                arrow = self.scene.arrows[i]
                label = self.labels.arrow(arrow, apart=True)
                digraph.node(f"label{i}", label=label, id=f"label-{arrow.id}", **_BARE)

    def _write_note(self, digraph: graphviz.Digraph, cluster: Cluster, first: str) -> None:
        """Write a cluster's title and note beside its first box, where no arrow runs through."""
        with digraph.subgraph(graph_attr={"rank": "same"}) as rank:
            rank.node(f"note_{cluster.key}", label=self.labels.note(cluster), **_BARE)
            rank.edge(f"note_{cluster.key}", first, style="invis")

    def _write_ranks(self) -> None:
        """Keep boxes in one rank: the stack also in order, by edges that are not seen."""
        for keys in filter(None, (self.scene.stack, *self.scene.aligned)):
            with self.digraph.subgraph(graph_attr={"rank": "same"}) as rank:
                for key in keys:
                    rank.node(key)
                if keys is self.scene.stack:
                    for above, below in pairwise(keys):
                        rank.edge(above, below, style="invis")

    def _write_arrow(self, arrow: Arrow, by_way_of: str) -> None:
        attributes = LINES[arrow.tone] | {"color": self.colours[arrow.tone]}
        tail = f"{arrow.source}:{arrow.source_port}:e" if arrow.source_port else arrow.source
        head = f"{arrow.target}:{arrow.port}:e" if arrow.port else arrow.target
        if arrow.back:
            attributes["constraint"] = "false"
        if arrow.loose:
            attributes["weight"] = "0"
            head = f"{arrow.target}:s"  # around the cluster, not through it
        if by_way_of:
            start = attributes | {"id": f"{arrow.id}-start", "arrowhead": "none"}
            self.digraph.edge(tail, by_way_of, **start)
            tail = by_way_of
        elif arrow.label or arrow.cells:
            attributes["label"] = self.labels.arrow(arrow)
        self.digraph.edge(tail, head, id=arrow.id, **attributes)

    def _box_style(self, box: Box) -> dict[str, str]:
        colours = {"color": self.colours["ink"], "fillcolor": self.colours[box.kind]}
        style = BOXES[box.kind] | colours
        if box.output and box.kind != "fused":  # a second border would hide the third dimension
            style["peripheries"] = "2"
        if box.alarming or box.current:
            double = "peripheries" in style and not box.alarming
            style["penwidth"] = "2.5" if double else "4"
            style["color"] = self.colours["alarm" if box.alarming else "gradient"]
        return style


# Layout -------------------------------------------------------------------------------------------


def _depths(scene: Scene) -> dict[str, int]:
    """For each box how many arrows lead to it on the longest way; boxes are in order."""
    sources: dict[str, list[str]] = {}
    for arrow in scene.arrows:
        if not arrow.back:
            sources.setdefault(arrow.target, []).append(arrow.source)
    depth: dict[str, int] = {}
    for box in scene.boxes:
        ways = [depth.get(source, 0) + 1 for source in sources.get(box.key, ())]
        depth[box.key] = max(ways, default=0)
    return depth


def _labels_in_frames(scene: Scene, depth: dict[str, int]) -> dict[int, Path]:
    """Arrows that pass by other boxes of their cluster, by position, and the cluster.

    Graphviz would let the label of such a one stick out.
    """
    paths = {box.key: box.path for box in scene.boxes}
    return {
        i: paths[arrow.source]
        for i, arrow in enumerate(scene.arrows)
        if arrow.label
        and paths[arrow.source]
        and paths[arrow.source] == paths[arrow.target]
        and depth[arrow.target] - depth[arrow.source] > 1
    }
