"""An svg that Graphviz wrote, made fit to stand alone: its width, its theme, its motion."""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Iterable, Sequence

from viz.style import DARK, LIGHT, Look

_NAME = "tinygrad-sm"  # of the class that rules are for: a page may hold other pictures
_HIDDEN = re.compile('fill="(transparent|#fffffe)"')  # the latter by an older Graphviz
AT_REST = 3
"""How long the last of pictures that follow each other is seen, in turns."""


def standalone(svg: str, name: str, look: Look) -> str:
    """An svg that is never wider than its place, and dark where its reader prefers that."""
    kept = (line for line in _bare(svg).splitlines() if not _HIDDEN.search(line))
    return _styled("\n".join(kept) + "\n", name, _dark(look))


def played(svgs: Sequence[str], name: str, look: Look, seconds: float) -> str:
    """One svg that shows several of the same layout one after the other, again and again.

    What all have in common is written once. There is no script: rules of CSS switch the rest on
    and off. Where the reader wants no motion, it rests at the last picture.
    """
    frames = [_bare(svg).splitlines() for svg in svgs]
    turns = len(frames) - 1 + AT_REST
    prefix = f"t{zlib.crc32(''.join(svgs).encode()):08x}"  # a page may hold several
    names: dict[tuple[int, ...], str] = {}
    lines: list[str] = []
    for variants in zip(*frames, strict=True):
        when: dict[str, list[int]] = {}
        for i, line in enumerate(variants):
            when.setdefault(line, []).append(i)
        for line, shown in when.items():
            if _HIDDEN.search(line):
                continue
            if len(when) > 1:
                rule = names.setdefault(tuple(shown), f"{prefix}-{len(names)}")
                line = re.sub(r"^<(\w+)", rf'<\1 class="{prefix} {rule}"', line)
            lines.append(line)
    rules = [
        _dark(look),
        f".{prefix}{{visibility:hidden;animation:{turns * seconds:g}s step-end infinite}}",
        *(_rule(rule, shown, turns, len(frames)) for shown, rule in names.items()),
        f"@media (prefers-reduced-motion:reduce){{.{prefix}{{animation-play-state:paused;"
        f"animation-delay:{-(turns - 1) * seconds:g}s}}}}",
    ]
    return _styled("\n".join(lines) + "\n", name, "\n".join(rules))


def _rule(name: str, shown: Iterable[int], turns: int, count: int) -> str:
    """When an element is seen: in these of the pictures."""
    states = [i in shown for i in range(count)]
    changes = [i for i in range(count) if i == 0 or states[i] != states[i - 1]]
    steps = "".join(
        f"{100 * i / turns:.4g}%{{visibility:{'visible' if states[i] else 'hidden'}}}"
        for i in changes
    )
    return f"@keyframes {name}{{{steps}}}.{name}{{animation-name:{name}}}"


def _bare(svg: str) -> str:
    """Without the document type, which refers to elsewhere, and Graphviz's comments and titles."""
    bare = re.sub(r"(<!DOCTYPE.*?>|<!--.*?-->|<title>.*?</title>)\s*", "", svg, flags=re.DOTALL)
    return bare.replace("&#45;", "-")


def _styled(svg: str, name: str, rules: str) -> str:
    spoken = f'role="img" aria-label="{html.escape(name)}"'
    opening = f'<svg class="{_NAME}" {spoken} style="max-width:100%;height:auto"'
    styled = svg.replace("<svg", opening, 1)
    return styled.replace("<g ", f"<style>{rules}</style>\n<g ", 1) if rules else styled


def _dark(look: Look) -> str:
    """What turns each colour of the light theme into that of the dark one, if it is to be done."""
    if look.theme != "auto":
        return ""
    colours = {light.lower(): DARK[role] for role, light in LIGHT.items()}
    rules = "".join(
        f'.{_NAME} [{what}="{light}"]{{{what}:{dark}}}'
        for light, dark in colours.items()
        for what in ("fill", "stroke")
    )
    return f"@media (prefers-color-scheme:dark){{{rules}}}"
