"""The direction of imports, and what the engine stands on."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("tinygrad_sm/**/*.py"), *ROOT.glob("viz/**/*.py")])

# From the ground up: a module imports from the layers below its own, or from its own. A room is a
# folder; of the engine and of the arrays, each file.
LAYERS = [
    {"errors"}, {"notebook"}, {"texts"}, {"arrays.kinds"}, {"arrays.elements", "arrays.refused"},
    {"engine.intake"}, {"engine.arguments"}, {"engine.primitive"}, {"engine.shapes"},
    {"engine.rules"}, {"engine.more"}, {"engine.node"}, {"engine.threads"},
    {"engine.scopes"}, {"engine.memory"}, {"engine.numpy_protocol"}, {"engine.sweep"},
    {"engine.view"}, {"engine.trace"}, {"engine.calling"}, {"engine.methods"},
    {"engine.gradients"}, {"engine.tensor"}, {"engine.later"}, {"engine.derivatives"},
    {"loss"}, {"arrays.general", "arrays.dask", "arrays.jax", "arrays.jaxpr"},
    {"fusion", "study"}, {"viz"}, {"__init__"}, {"cli", "__main__"},
]  # fmt: skip


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path):
    """Names of the modules that a file imports when it runs; not those for the type checker."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    for_types = {
        inner
        for node in nodes
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
    }
    for node in nodes:
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    """The room that a module belongs to; "" for a package's front page, which only opens it."""
    parts = module.removesuffix(".__init__").split(".")
    if parts[0] == "viz":
        return "viz"
    if parts[1:2] in (["engine"], ["arrays"]):
        return ".".join(parts[1:3]) if len(parts) > 2 else ""
    return parts[1] if len(parts) > 1 else "__init__"


def layer_of(module):
    room = room_of(module)
    return next((i for i, rooms in enumerate(LAYERS) if room in rooms), -1)


def ours(path):
    """The modules of this project that a file imports, at their finest."""
    names = {n for n in imports_of(path) if n.split(".")[0] in ("tinygrad_sm", "viz")}
    return {n for n in names if not any(other.startswith(n + ".") for other in names)}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    here = module_of(path)
    for there in ours(path):
        assert layer_of(there) <= layer_of(here), f"{here} imports {there}, which builds on it"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[1] in ("engine", "loss")], ids=module_of
)
def test_the_engine_stands_on_numpy_alone(path):
    outside = {name.split(".")[0] for name in imports_of(path)} - {"tinygrad_sm"}
    compiler = {"numba"} if path.stem == "loops" else set()
    assert outside - set(sys.stdlib_module_names) <= {"numpy"} | compiler


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_function_and_its_module_never_share_a_name(path):
    named = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body
             if isinstance(node, (ast.FunctionDef, ast.ClassDef))}  # fmt: skip
    assert path.stem not in named


def patched(source):
    """What a module changes of another one when it is loaded: a circle that imports do not show."""
    tree = ast.parse(source)
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target).split(".")[0] in imported:
                yield ast.unparse(target)
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("setattr("):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_module_patches_another(path):
    assert list(patched(path.read_text(encoding="utf-8"))) == []


def test_a_patch_would_be_seen():
    source = (
        "from a import tensor\nimport b\ntensor._backward = 1\nb.c.d: int = 2\nsetattr(b, 'x', 1)"
    )
    assert list(patched(source)) == ["tensor._backward", "b.c.d", "setattr(b, 'x', 1)"]


PICTURES = [
    "notation", "scene", "style", "values", "formula", "options", "files", "picture", "mermaid",
    "rendering", "labels", "dot", "svg", "tikz", "drawing", "lab", "sketch", "graphs",
    "comparisons", "derivations", "levels", "fusion", "slides", "notebooks", "lessons",
    "__init__",
]  # fmt: skip


@pytest.mark.parametrize("path", sorted(ROOT.glob("viz/*.py")), ids=module_of)
def test_what_a_picture_says_knows_no_format_and_a_format_no_graph(path):
    """From data to pictures: a module imports from those before it."""
    before = PICTURES[: PICTURES.index(path.stem)]
    assert {n.split(".")[1] for n in ours(path) if n.startswith("viz.")} <= {*before}
    if path.stem in ("dot", "labels", "mermaid", "rendering", "svg", "tikz"):
        assert not any("engine" in name for name in ours(path))


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.parent.name == "kernels" and p.stem not in ("calling", "choosing")],
    ids=module_of,
)
def test_the_kernel_knows_arrays_alone(path):
    known = ("errors", "engine.threads", "loss.kernels")
    assert all(name.startswith(tuple(f"tinygrad_sm.{x}" for x in known)) for name in ours(path))


def test_no_two_test_files_share_a_name():
    """Pytest imports them by name alone, and would stop at the second."""
    names = sorted(path.name for path in (ROOT / "tests").glob("**/test_*.py"))
    assert len(names) == len(set(names))
