"""A real browser, which writes down its console and its requests."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1280,900",
)


class Browser:
    """A browser with a page in it, and what a reader does there."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """The addresses that the page asked for, but for itself and what it holds in memory."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
        return {url for url in found if not url.startswith(("data:", "blob:"))}

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def texts_of(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.run(script, selector)

    def backgrounds(self) -> list[str]:
        script = (
            "return [...document.querySelectorAll('#tokens span')]"
            ".map((e) => getComputedStyle(e).backgroundColor)"
        )
        return self.run(script)

    def slide(self, index: int) -> str:
        """Move the slider as a user does: the input event, and what the page then says."""
        self.run(
            "const s = document.getElementById('slider'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input', {bubbles: true}));",
            index,
        )
        return self.run("return document.querySelector('.slide output').textContent")

    def open_sequence(self, run_index: int, sequence: int) -> None:
        """Through the list's button, whichever page of the list it is on."""
        self.run(
            """
            const [r, sequence] = arguments;
            const box = document.querySelector('#list input[type=search]');
            box.value = `sequence=${sequence}`;
            box.dispatchEvent(new Event('input', {bubbles: true}));
            const select = document.querySelector('#list select');
            select.value = data.runs[r].label;
            select.dispatchEvent(new Event('change', {bubbles: true}));
            document.querySelector('#list tbody button').click();
            """,
            run_index,
            sequence,
        )

    def cells(self, column: str) -> list[str]:
        script = """
            const texts = (cells) => [...cells].map((e) => e.textContent);
            const at = texts(document.querySelectorAll('#results thead th')).indexOf(arguments[0]);
            const rows = [...document.querySelectorAll('#results tbody tr')];
            return texts(rows.map((row) => row.cells[at]));
        """
        return self.run(script, column)

    def search(self, words: str) -> None:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        box = self.driver.find_element(By.CSS_SELECTOR, "#results input[type=search]")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE, words)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium, which writes down its console and its requests."""
    there = [Path(CHROMIUM).exists(), Path(CHROMEDRIVER).exists()]
    if not any(there):
        pytest.skip("the report is tested in a browser: apt-get install chromium chromium-driver")
    assert all(there), f"both are needed: {CHROMIUM}, {CHROMEDRIVER} (chromium, chromium-driver)"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tmp_path_factory.mktemp("profile")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="session")
def opened(driver: Any) -> Callable[[Path], Browser]:
    """Open a page and wait until it is drawn."""

    def open_page(path: Path) -> Browser:
        driver.get_log("browser"), driver.get_log("performance")  # what was before is forgotten
        driver.get(path.as_uri())
        end_s = time.monotonic() + 60
        while driver.execute_script("return document.documentElement.dataset.ready") != "yes":
            assert time.monotonic() < end_s, driver.get_log("browser")
            time.sleep(0.02)
        return Browser(driver)

    return open_page
