"""Write pictures of a study's pages: MLflow's pages in Chromium, and the report.

Usage: ``python tools/write_pictures.py HOME STUDY FOLDER [--model NAME]``. It needs Chromium and its driver (Debian:
``chromium chromium-driver``). ``make pictures`` runs it on the study of ``make demo``; the tests of MLflow's pages use
the same browser.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

__all__ = ["CHROMIUM", "DRIVER", "PageBrowser", "serve_pages", "write_pictures"]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LONGEST_WAIT = 120
WORKFLOW = "workflowType=machine_learning"
DRAWING = 3
"""Seconds that figures need after the text of their page."""
ASSISTANT_SEEN = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
"""Entry of the browser's storage without which MLflow opens the panel of its assistant."""


class PageBrowser:
    """Headless Chromium that opens pages and saves pictures of them.

    Args:
        address: Address of MLflow's pages, which ends with ``#``.
        folder: Folder of the pictures.
        size: Width and height of the window in pixels.
    """

    def __init__(self, address: str, folder: Path, size: tuple[int, int] = (1600, 1200)) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.address, self.folder = address, folder
        folder.mkdir(parents=True, exist_ok=True)
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        window = f"--window-size={size[0]},{size[1]}"
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", window):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.driver.get(address.removesuffix("#"))
        self.driver.execute_script(f"localStorage.setItem('{ASSISTANT_SEEN}', 'true')")

    @property
    def text(self) -> str:
        """Text of the page."""
        from selenium.webdriver.common.by import By

        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def open(self, path: str, name: str, *awaited: str) -> str:
        """Open one of MLflow's pages, wait for texts, save a picture and return the text of the page.

        Args:
            path: Path within MLflow's pages, or a whole address.
            name: Name of the picture.
            awaited: Texts that the page has to contain.
        """
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver.get("about:blank")  # otherwise the browser does not load the page again
        self.driver.get(path if "://" in path else self.address + path)
        try:
            WebDriverWait(self.driver, LONGEST_WAIT).until(lambda _: all(words in self.text for words in awaited))
        finally:
            self.save(name)
        return self.text

    def save(self, name: str) -> None:
        """Save a picture of the window, with at most 256 colours."""
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        picture.save(self.folder / f"{name}.png", optimize=True)

    def show(self, words: str) -> None:
        """Scroll to the heading that begins with some words."""
        from selenium.webdriver.common.by import By

        element = self.driver.find_element(By.XPATH, f"//h2[starts-with(normalize-space(text()), '{words}')]")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'start'})", element)

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window in pixels."""
        self.driver.set_window_size(width, height)

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()


@contextmanager
def serve_pages(home: Path, study: str | None = None, port: int | None = None) -> Iterator[str]:
    """Run ``clinie ui`` and yield the address that it prints, as soon as the server answers."""
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
    program = [str(Path(sys.executable).with_name("clinie")), "ui", *([study] if study else []), "--home", str(home)]
    server = subprocess.Popen(
        [*program, "--port", str(port), "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().decode().strip()
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None:
                sys.exit(f"clinie ui ended with {server.returncode}; run it for the reason: {' '.join(program)}")
            time.sleep(0.2)
        yield address
    finally:
        _end(server)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=20)
        for one in left:
            one.kill()
        process.wait()


def write_pictures(home: Path, study: str, folder: Path, model: str | None = None) -> None:
    """Write the pictures of a finished study.

    Args:
        home: Home folder of the study.
        study: Name of the study.
        folder: Folder of the pictures; existing ones are replaced.
        model: Name of a registered model whose page is shown, too.
    """
    from search.api import load_study

    with tempfile.TemporaryDirectory() as temporary, serve_pages(home, study) as address:
        report = Path(temporary, "report.html")
        loaded = load_study(study, home=home)
        loaded.report(report)
        browser = PageBrowser(address.partition("#")[0] + "#", folder)
        try:
            _picture_study(browser, address.partition("#")[2], loaded.best)
            if model is not None:
                browser.resize(1400, 1000)
                browser.open(f"/models/{model}?{WORKFLOW}", "mlflow-model", "champion", "Version 1")
            _picture_report(browser, report)
        finally:
            browser.close()


def _picture_study(browser: PageBrowser, path: str, best: Any) -> None:
    """Write the pictures of the trials' table, of their charts and of the best trial."""
    browser.resize(1400, 700)
    browser.open(path, "mlflow-trials", "matching runs", "best/")
    browser.resize(1400, 1500)
    browser.open(path + "&compareRunsMode=CHART", "mlflow-charts", "Learning curves", "Comparison of the trials")
    time.sleep(DRAWING)
    browser.save("mlflow-charts")
    experiment = path.split("/")[2]
    browser.resize(1400, 1000)
    browser.open(f"/experiments/{experiment}/runs/{best.run_id}?{WORKFLOW}", "mlflow-trial", "clinie repeat")


def _picture_report(browser: PageBrowser, report: Path) -> None:
    """Write the pictures of the first sections of a report, and of its sections on errors."""
    browser.resize(1200, 1000)
    browser.open(report.as_uri(), "report", "Which configuration is best?")
    time.sleep(DRAWING)
    browser.save("report")
    browser.show("How good is the best trial at each type?")
    browser.save("report-errors")


def main() -> None:
    """Write the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write pictures of a study's pages in MLflow and of its report.")
    parser.add_argument("home", type=Path, help="home folder of the study")
    parser.add_argument("study", help="name of a finished study")
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("--model", help="registered model whose page is shown, too")
    arguments = parser.parse_args()
    if not (CHROMIUM and DRIVER):
        sys.exit("chromium or chromedriver is missing (Debian: apt-get install chromium chromium-driver)")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # only MLflow's own pages are opened
    write_pictures(arguments.home, arguments.study, arguments.folder, arguments.model)
    print(json.dumps({file.name: file.stat().st_size for file in sorted(arguments.folder.glob("*.png"))}))


if __name__ == "__main__":
    main()
