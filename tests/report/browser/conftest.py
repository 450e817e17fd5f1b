"""A headless Chromium for the tests of pages; skipped where it is absent, required where CI is true."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

#: Debian's names of the browser and its driver
CHROMIUM, DRIVER = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)

#: an element as a test would call it: tag, then id or accessible name
_NAME = """e => e.id ? e.tagName.toLowerCase() + '#' + e.id : e.tagName.toLowerCase() + ':'
  + (e.getAttribute('aria-label') || e.textContent || e.getAttribute('name') || '').trim().slice(0, 60)"""


class Browser:
    """One window. Every page that is opened starts with empty logs."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, settle=True):
        """A file or an address. settle: wait until nothing is left to do for a moment."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)
        if settle:
            self.idle()
        return self

    def run(self, script, *args):
        """JavaScript of a function's body."""
        return self.driver.execute_script(script, *args)

    def idle(self):
        """Wait until two frames and an idle period have passed."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => requestIdleCallback(() => done(), {timeout: 5000})))"
        )

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def wait(self, condition, seconds=10.0):
        """Until a JavaScript expression is true; its value."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.05).until(lambda driver: driver.execute_script(f"return {condition}"))

    def errors(self):
        """What the console has said at the level of an error or a warning since the page was opened."""
        return [row["message"] for row in self.driver.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """Addresses asked for since the page was opened, answered or not; data: and blob: ask nobody, chrome: is its own."""
        found = []
        for row in self.driver.get_log("performance"):
            message = json.loads(row["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [one for one in found if not one.startswith(("data:", "blob:", "chrome:"))]

    def load_ms(self):
        """From the start of the navigation to the end of the load event."""
        timing = "performance.getEntriesByType('navigation')[0]"
        return self.wait(f"{timing}.loadEventEnd && {timing}.loadEventEnd - {timing}.startTime")

    def keys(self, *keys):
        """Pressed one after the other on what has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def hover(self, element, x=0, y=0):
        """The pointer over an element, at an offset from its middle."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).move_to_element_with_offset(element, x, y).perform()

    def tab_order(self, most=1000):
        """What the tabulator reaches from the top of the page until it comes round, by name."""
        self.run(
            "document.activeElement.blur(); window.scrollTo(0, 0); window.getSelection().removeAllRanges();"
            f"const name = {_NAME}; window.__reached = []; window.__round = false;"
            "document.addEventListener('focusin', event => { const e = event.target; if (e.__reached) window.__round = true;"
            " else window.__reached.push(name(e)); e.__reached = true; })"
        )
        for _ in range(0, most, 40):
            self.keys(*["\ue004"] * 40)
            if self.run("return window.__round"):
                break
        return self.run("return window.__reached")

    def unreached(self):
        """Controls that can be seen and used with a pointer, but not be reached with the tabulator; after :meth:`tab_order`."""
        return self.run(
            f"""const name = {_NAME};
            const controls = 'a[href], button, input, select, textarea, summary, canvas[tabindex], [role=button], [onclick]';
            const group = e => e.type === 'radio' && [...document.getElementsByName(e.name)].some(o => o.__reached);
            return [...document.querySelectorAll(controls)].filter(e => e.checkVisibility({{visibilityProperty: true}})
              && !e.disabled && !e.__reached && !group(e)).map(name)"""
        )

    def unreached_after_tab(self):
        """:meth:`unreached`, once the tabulator has gone round."""
        self.tab_order()
        return self.unreached()

    def scheme(self, value):
        """light or dark, as the system would prefer; "" as it is."""
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})

    def luminance(self, selector="body"):
        """0 black to 1 white, of an element's background."""
        red, green, blue = self.run(
            "const c = getComputedStyle(document.querySelector(arguments[0])).backgroundColor.match(/[\\d.]+/g).map(Number);"
            "return c.slice(0, 3)",
            selector,
        )
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255

    def pdf(self):
        """The page as it prints."""
        made = self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False, "preferCSSPageSize": True})
        return base64.b64decode(made["data"])

    def narrow(self, width=None):
        """The window's width in pixels; None: the usual one."""
        self.driver.set_window_size(width or 1400, 1000)


def _absent(what):
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is absent, but CI=true requires it")
    pytest.skip(f"{what} is absent: apt install chromium chromium-driver; pip install '.[test]'")


@pytest.fixture(scope="session")
def _driver(tmp_path_factory):
    try:
        from selenium import webdriver
    except ImportError:
        _absent("selenium")
    binary, driver = (next((found for name in names if (found := shutil.which(name))), None) for names in (CHROMIUM, DRIVER))
    if binary is None or driver is None:
        _absent("chromium" if binary is None else "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000", 
        "--disable-background-networking", "--disable-component-update", "--no-first-run", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    made.set_script_timeout(30)
    yield made
    made.quit()


@pytest.fixture(scope="session")
def window(_driver):
    """The window, for fixtures that keep a page open for several tests."""
    return Browser(_driver)


@pytest.fixture
def browser(window):
    """The window at its usual size, with the system's colours, and nothing in it."""
    window.narrow(None)
    window.scheme("")
    yield window
    window.driver.get("about:blank")
