"""Run the notebooks in `examples` and keep what they show: `python docs/run_notebooks.py`.

Needs the extra `notebooks`. The tests run them again, and compare.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parent.parent / "examples"


def executed(path: Path) -> NotebookNode:
    """Return a notebook with the outputs that it has today; raise where a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", coalesce_streams=True).execute()
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}  # of any version
    for cell in notebook.cells:
        cell.metadata = {}  # when it ran
    return notebook


def main() -> None:
    """Run every notebook, and write it where it stands."""
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(path.name)


if __name__ == "__main__":
    main()
