"""Headless Chromium, and the report opened from disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    opened(chromium, report.as_uri())
    return chromium


def opened(browser, address: str) -> None:
    """Open a page and wait for it: a script sent too early meets the page before, which may be of the same address."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(address)
    ready = f"return document.readyState === 'complete' && location.href === {json.dumps(address)}"
    WebDriverWait(browser, 60).until(lambda current: current.execute_script(ready))


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


# ---- the services of a home


@dataclass(frozen=True)
class Served:
    """A home with `sluice up` and `sluice deploy`."""

    home: Path
    prefect: str
    mlflow: str

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a verb under the home."""
        command = [sys.executable, "-m", "flows.cli.main", *arguments]
        variables = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        environment = {**variables, "SLUICE_HOME": str(self.home)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.home, env=environment, stdout=pipe, stderr=pipe, text=True)

    def sluice(self, *arguments: str, timeout: float = 500) -> str:
        """Run a verb under the home; its stdout."""
        running = self.start(*arguments)
        out, told = running.communicate(timeout=timeout)
        assert running.returncode == 0, f"{arguments}: {out[-2000:]}{told[-2000:]}"
        return out

    def api(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """Ask Prefect's API; with `content`, by POST."""
        import httpx

        url = f"{self.prefect}/api{path}"
        answer = httpx.get(url, timeout=60) if content is None else httpx.post(url, json=content, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def deployment(self, name: str) -> str:
        """The id of a deployment, FLOW/NAME."""
        return str(self.api(f"/deployments/name/{name}")["id"])

    def all_runs(self, deployment: str) -> list[dict[str, Any]]:
        """The runs of a deployment, those of coming nights too, the oldest first."""
        wanted = {"deployments": {"id": {"any_": [self.deployment(deployment)]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self.api("/flow_runs/filter", wanted))

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """The runs of a deployment that are due, the oldest first."""
        return [run for run in self.all_runs(deployment) if not run["auto_scheduled"]]


HIDDEN = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME", "SLUICE_CLUSTER", "PREFECT_LOGGING_LEVEL")
"""What other tests leave in the environment and the services must not inherit."""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def served(chromium, tmp_path_factory) -> Iterator[Served]:
    """Standing services for a new home, on ports of their own."""
    ports = free_ports(4)
    home = tmp_path_factory.mktemp("served")
    found = Served(home, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    names = ("--prefect-port", "--mlflow-port", "--dask-port", "--dashboard-port")
    options = [text for name, port in zip(names, ports, strict=True) for text in (name, str(port))]
    try:
        found.sluice("up", *options, "--workers", "1", "--runs", "2", "--timeout", "400")
        yield found
    finally:
        found.sluice("down")


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait until a function gives something true, and give that."""

    def wait(function: Callable[[], Any], seconds: float = 400, every: float = 0.5) -> Any:
        ends = time.monotonic() + seconds
        while not (found := function()):
            assert time.monotonic() < ends, f"waited {seconds} s in vain"
            time.sleep(every)
        return found

    return wait


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[object, str], None]:
    """Keep a screenshot; in the folder that SLUICE_PICTURES names, where it is set."""
    folder = Path(os.environ.get("SLUICE_PICTURES", tmp_path))

    def keep(browser: Any, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        assert browser.save_screenshot(str(folder / f"{name}.png"))

    return keep
