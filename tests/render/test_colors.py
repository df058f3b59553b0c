"""Guarantee: text and plots are legible on light and dark pages, for every color vision."""

from itertools import combinations

import numpy as np
import pytest

from offline_cql.render.colors import PAGE, PLOT, SERIES, css_variables

SCHEMES = ("light", "dark")
TEXT = ("text", "soft", "link", "good", "bad", "warn")
LINES = (
    *("plot-axis", "plot-fill", "plot-ink", "plot-reference", "plot-baseline", "plot-chosen"),
    *(f"series-{number}" for number in range(1, len(SERIES) + 1)),
)
# Machado, Oliveira & Fernandes 2009: what a full deficiency makes of linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(color: str) -> np.ndarray:
    """Return linear RGB in [0, 1] of #rrggbb."""
    value = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    """Return the WCAG contrast ratio, from 1 to 21."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (first, second))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return coordinates in which distances are about what people see (Ottosson 2020)."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(axes) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))


def test_the_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # WCAG's example


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("background", ["paper", "card"])
@pytest.mark.parametrize("name", TEXT)
def test_text_meets_wcag_aa(scheme: str, background: str, name: str):
    variables = css_variables(scheme)
    assert contrast(variables[name], variables[background]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_of_plots_meets_wcag_aa_on_shaded_zones_too(scheme: str):
    variables = css_variables(scheme)
    for background in ("card", "plot-low-zone", "plot-high-zone"):
        assert contrast(variables["plot-text"], variables[background]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", LINES)
def test_lines_of_plots_have_the_contrast_of_graphics(scheme: str, name: str):
    variables = css_variables(scheme)
    assert contrast(variables[name], variables["card"]) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("vision", VISION)
def test_series_differ_for_every_kind_of_color_vision(scheme: str, vision: str):
    """0.05 is several times the difference that is just noticeable (about 0.01 to 0.02)."""
    column = SCHEMES.index(scheme)
    seen = [oklab(np.array(VISION[vision]) @ linear(pair[column])) for pair in SERIES]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.05


def test_a_color_of_a_plot_names_one_variable():
    light = [pair[0] for pair in PLOT.values()]
    assert len(light) == len(set(light))
    assert not set(PAGE) & set(PLOT)
