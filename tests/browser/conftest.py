"""Headless Chromium, and the report opened from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1360,900",
)  # fmt: skip
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A browser that logs its console and its network; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def report(report_context, tmp_path_factory) -> Path:
    """The report of the invented campaign on disk."""
    from gnn.screening.report import write_report

    return write_report(tmp_path_factory.mktemp("campaign"), report_context)


@pytest.fixture
def page(chromium, report) -> object:
    """The browser with the report freshly opened, in light, at a desktop's width."""
    emulate(chromium, "light")
    chromium.set_window_size(1360, 900)
    chromium.get(report.as_uri())
    return chromium


def emulate(browser, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features, "media": ""})


@pytest.fixture
def in_scheme() -> Callable[[object, str], None]:
    """Make the browser prefer light or dark."""
    return emulate


@pytest.fixture
def requests() -> Callable[[object], list[str]]:
    """Addresses that the browser asked for since the last call."""

    def asked(browser) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [request["request"]["url"] for request in sent]

    return asked
