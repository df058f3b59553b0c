"""Guarantee: a browser shows the page in both color schemes and on a phone, without any request.

Needs Chromium: the executable that the variable CHROMIUM names, or one on the PATH.
"""

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.run_dirs import write_grid, write_mixed

from offline_cql.render.colors import css_variables
from offline_cql.report.load_runs import load_runs
from offline_cql.report.model_selection import Limits
from offline_cql.report.summary import summarize
from offline_cql.report.write import write

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PHONE, SCREEN = 390, 1100
# Measures the page in a frame of a phone's width; --dump-dom prints the element with the result.
MEASURE = """
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  const plots = [...page.querySelectorAll("svg")];
  const boxes = plots.map(plot => plot.getBoundingClientRect());
  const cut = plots.flatMap((plot, k) => [...plot.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < boxes[k].left - 2 || box.right > boxes[k].right + 2;
  }));
  const measured = {
    width: page.documentElement.scrollWidth,
    svg: boxes.map(box => [box.width, box.height]),
    cut: cut.map(text => text.textContent),
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
  };
  document.querySelector("output").textContent = JSON.stringify(measured);
});
"""


def chromium(tmp_path: Path, *arguments: str) -> str:
    """Run a headless Chromium and return what it prints."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", *arguments),
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return process.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_page(write_grid(folder / "runs"), folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    return write_page(write_mixed(folder / "runs", seeds=8), folder)


def write_page(runs: Path, folder: Path) -> Path:
    """Write the report of a folder of runs; return the page."""
    limits = Limits(above_best_share=0.05, bc_margin=0.1)
    sampling = {"resamples": 200, "seed": 0}
    summary = summarize(load_runs(str(runs)), limits, **sampling)
    out = folder / "out"
    out.mkdir()
    write(out, summary, limits, docs=None, **sampling)
    return out / "report.html"


def screenshot(page: Path, folder: Path, scheme: str) -> np.ndarray:
    """Return the page's top as RGB values [height, width, 3]."""
    path = folder / "screen.png"
    preferred = {"light": 1, "dark": 0}[scheme]
    chromium(
        folder,
        f"--blink-settings=preferredColorScheme={preferred}",
        f"--window-size={SCREEN},2400",
        f"--screenshot={path}",
        f"file://{page}",
    )
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def pixels(image: np.ndarray, color: str) -> int:
    """Return how many pixels have a color, up to rounding."""
    rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(image - rgb).sum(axis=-1) < 6).sum())


def measure(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """Return what MEASURE measures in a frame of that width."""
    frame = f'<iframe width="{width}" height="800" srcdoc="{escape(page.read_text())}"></iframe>'
    wrapper = folder / "frame.html"
    wrapper.write_text(f'<meta charset="utf-8">{frame}<output></output><script>{MEASURE}</script>')
    printed = chromium(folder, "--dump-dom", f"file://{wrapper}")
    measured: dict[str, Any] = json.loads(
        unescape(re.findall(r"<output>(.*?)</output>", printed, re.S)[-1])
    )
    return measured


def test_a_phone_shows_the_whole_page_without_scrolling_sideways(page: Path, tmp_path: Path):
    measured = measure(page, tmp_path, PHONE)
    assert measured["width"] <= PHONE
    assert len(measured["svg"]) == 10
    assert all(250 < width <= PHONE and height > 50 for width, height in measured["svg"])
    assert measured["requests"] == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_two_hundred_runs_of_ten_kinds_fit_the_page(mixed: Path, tmp_path: Path, width: int):
    measured = measure(mixed, tmp_path, width)
    assert measured["width"] <= width
    assert measured["cut"] == []
    assert measured["requests"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screen_shows_the_page_in_the_colors_of_its_scheme(
    page: Path, tmp_path: Path, scheme: str
):
    image, colors = screenshot(page, tmp_path, scheme), css_variables(scheme)
    assert image.shape == (2400, SCREEN, 3)
    assert pixels(image, colors["paper"]) > 100_000
    assert pixels(image, colors["card"]) > 500_000
    assert pixels(image[:400], colors["good"]) > 300  # the bar beside "Ship"
    assert pixels(image, colors["plot-low-zone"]) > 3000  # alphas that are too small
    assert pixels(image, colors["series-1"]) > 100
