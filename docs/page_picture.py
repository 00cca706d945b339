"""Make docs/page.png, the page as a browser shows it: `python docs/page_picture.py`.

It needs the extra `browser`, and Chromium on the PATH or named in TINYGRAD_SM_BROWSER.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import viz

HERE = Path(__file__).parent
STEP = 15  # where both contributions have arrived at e


def main() -> None:
    """Write the picture beside this file."""
    program = os.environ.get("TINYGRAD_SM_BROWSER") or shutil.which("chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 760}, reduced_motion="reduce")
        made = viz.page().save(Path(folder) / "lesson.html")
        page.goto(f"{made.as_uri()}#step={STEP}")
        page.screenshot(path=HERE / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
