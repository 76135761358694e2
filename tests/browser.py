"""Headless Chromium, controlled by selenium."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000"),
    *("--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>"),  # unused port: no network
)


class Browser:
    """One Chromium instance; `open` clears the logs and loads a page."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(PROGRAMS["chromium"])
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(PROGRAMS["chromedriver"])))

    def open(self, folder: Path) -> None:
        self.driver.get("about:blank")
        self.messages(), self.requests()
        self.driver.get((folder / "index.html").as_uri())

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, name: str):
        return self.driver.find_element(By.ID, name)

    def choose(self, name: str, value: str) -> None:
        Select(self.find(name)).select_by_value(value)

    def tick(self, name: str, *, on: bool) -> None:
        if self.find(name).is_selected() != on:
            self.find(name).click()

    def search(self, text: str) -> None:
        self.find("search").clear()
        self.find("search").send_keys(text, Keys.SPACE, Keys.BACKSPACE)  # `clear` alone fires no event

    def shown(self) -> list[str]:
        """Ids of the listed clips, in order."""
        return self.texts("#gallery h3")

    def texts(self, selector: str) -> list[str]:
        """The text of each element; through JSON, because the driver cannot return lone surrogates."""
        elements = f"[...document.querySelectorAll('{selector}')]"
        return json.loads(self.run(f"return JSON.stringify({elements}.map((element) => element.textContent))"))

    def wait(self, script: str) -> None:
        WebDriverWait(self.driver, 20).until(lambda _: self.run(f"return {script}"))

    def painted(self, clip: int = 0, state: str = "rule") -> list[str]:
        """The pixels of each canvas of a listed clip as data URLs, once they are drawn for this threshold."""
        self.run("document.querySelectorAll('.clip')[arguments[0]].scrollIntoView({ block: 'center' })", clip)
        row = f"[...document.querySelectorAll('.clip')][{clip}]"
        self.wait(f"[...{row}.querySelectorAll('figure')].every((figure) => figure.dataset.painted === '{state}')")
        return self.run(f"return [...{row}.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())")

    def slide(self, value: float) -> None:
        self.run(
            "const slider = document.getElementById('threshold'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'))",
            value,
        )
