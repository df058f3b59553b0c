"""Promise: a real browser shows the page, on a phone too, and asks no network for anything.

Needs Chromium: the one that the variable CHROMIUM names, or one on the PATH.
"""

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.run_dirs import write_grid

from offline_cql.report.load_runs import read_runs
from offline_cql.report.model_selection import Limits
from offline_cql.report.summary import summarize
from offline_cql.report.write import write

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
CHROMIUM = next((path for path in FOUND if path), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PHONE, SCREEN = 390, 1100
# Reads what a frame of a phone's width made of the page, into an element that --dump-dom prints.
MEASURE = """
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  const boxes = [...page.querySelectorAll("svg")].map(each => each.getBoundingClientRect());
  const said = {
    width: page.documentElement.scrollWidth,
    svg: boxes.map(box => [box.width, box.height]),
    asked: performance.getEntriesByType("resource").map(each => each.name),
  };
  document.querySelector("output").textContent = JSON.stringify(said);
});
"""


def chromium(tmp_path: Path, *arguments: str) -> str:
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", *arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    limits = Limits(above_best_share=0.05, bc_margin=0.1)
    sampling = {"resamples": 200, "seed": 0}
    found = summarize(read_runs(str(write_grid(folder / "runs"))), limits, **sampling)
    out = folder / "out"
    out.mkdir()
    write(out, found, limits, docs=None, **sampling)
    return out / "report.html"


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Path, tmp_path: Path):
    frame = f'<iframe width="{PHONE}" height="800" srcdoc="{escape(page.read_text())}"></iframe>'
    wrapper = tmp_path / "phone.html"
    wrapper.write_text(f'<meta charset="utf-8">{frame}<output></output><script>{MEASURE}</script>')
    printed = chromium(tmp_path, "--dump-dom", f"file://{wrapper}")
    said = json.loads(unescape(re.findall(r"<output>(.*?)</output>", printed, re.S)[-1]))
    assert said["width"] <= PHONE
    assert len(said["svg"]) == 10
    assert all(250 < width <= PHONE and height > 50 for width, height in said["svg"])
    assert said["asked"] == []


def test_a_screen_shows_the_recommendation_in_its_colour_and_plots(page: Path, tmp_path: Path):
    shot = tmp_path / "screen.png"
    size = f"--window-size={SCREEN},2400"
    chromium(tmp_path, size, f"--screenshot={shot}", f"file://{page}")
    seen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert seen.shape == (2400, SCREEN, 3)
    green = np.abs(seen - [0x2E, 0x8B, 0x57]).sum(axis=-1) < 30
    assert green[:400].sum() > 300  # the bar beside "ship"
    red = np.abs(seen - [0xF8, 0xDC, 0xD6]).sum(axis=-1) < 6
    assert red.sum() > 3000  # the zone of alphas that are too small
    assert seen[400:].std() > 10
