"""A headless browser for the tests of the page; without one they are skipped, with the reason."""

import os
import shutil

import pytest

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser():
    """Chromium, of TINYGRAD_SM_BROWSER or on the PATH."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
    found = filter(None, map(shutil.which, NAMES))
    program = os.environ.get("TINYGRAD_SM_BROWSER") or next(found, None)
    if not program:
        pytest.skip("needs Chromium: install it, or name its program in TINYGRAD_SM_BROWSER")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


class Opened:
    """A page in a browser, with what it said on its console and what it asked the network for."""

    def __init__(self, context, path):
        self.page = context.new_page()
        self.heard, self.requests = [], []
        self.page.on("console", lambda message: self.heard.append(message.text))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.path = path

    def go(self, hash=""):
        self.page.goto("about:blank")
        self.page.goto(f"{self.path.as_uri()}#{hash}")
        self.page.wait_for_function("document.getElementById('place').textContent")
        return self

    def step(self):
        return int(self.page.input_value("#scrubber"))

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()

    def walk(self, key, times):
        """Press a key so often, each time in a frame of its own; sooner than `press`."""
        self.page.evaluate(
            """async ([key, times]) => {
                for (let i = 0; i < times; i++) {
                    document.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
                    await new Promise(requestAnimationFrame);
                }
            }""",
            [key, times],
        )
        self.settle()

    def settle(self):
        """Wait until the frame after the next has been drawn."""
        twice = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self.page.evaluate(twice)

    def texts(self, selector):
        return self.page.eval_on_selector_all(selector, "all => all.map(x => x.textContent)")

    def column(self, node, what):
        """The numbers that a node's box shows of its value, gradient, or a term."""
        shown = f"svg:not(.elsewhere)[data-side=graph] [data-node='{node}'] .{what} text:not(.head)"
        return self.texts(shown)

    def is_silent(self):
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "about:"))]
        return self.heard == [] and outside == []


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page of ours: `opened(page, width=1280, hash="step=3")`."""
    contexts = []

    def open_page(made, *, width=1280, height=800, hash="", **options):
        path = made.save(tmp_path / f"lesson{len(contexts)}.html")
        options = {"reduced_motion": "reduce", **options}
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        return Opened(context, path).go(hash)

    yield open_page
    for context in contexts:
        context.close()
