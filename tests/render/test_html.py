"""Guarantee: a page is well formed, stands alone, escapes what it inserts, and can be used by
keyboard and screen reader."""

import re

import jinja2
import pytest
from support.pages import ParsedPage

from offline_cql.render import html
from offline_cql.render.colors import css_variables
from offline_cql.render.html import render_page
from offline_cql.render.table import Table

HOSTILE = '"><script>alert(1)</script>&'
SOURCE = """\
{% extends "base.html.j2" %}
{% import "components.html.j2" as ui %}
{% block title %}{{ title }}{% endblock %}
{% block summary %}{{ ui.contents([("one", "First")]) }}{% endblock %}
{% block content %}
<h2 id="one">{{ 1234.5 | number }} {{ 0.5 | share }} {{ 2 | count("run") }}</h2>
{{ ui.table(table) }}
{{ ui.finding("warning", message, "remedy") }}
{{ ui.facts("Data", [("label", message)]) }}
{% endblock %}
"""
TABLE = Table(
    title=f"Runs {HOSTILE}",
    columns=("run", HOSTILE, "n"),
    rows=[("1", HOSTILE, "3"), ("2", "b", "4")],
    align="llr",
    hints={"n": HOSTILE},
    links={"1": f"runs/{HOSTILE}"},
)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a page with every component and with names that could break it."""
    loader = html.PackageLoader("offline_cql", "render/templates")
    both = jinja2.ChoiceLoader([jinja2.DictLoader({"test.html.j2": SOURCE}), loader])
    monkeypatch.setattr(html, "PackageLoader", lambda *_: both)
    return render_page("test.html.j2", title=HOSTILE, message=HOSTILE, table=TABLE)


def test_a_page_is_well_formed_and_needs_no_network_and_no_script(page: str):
    read = ParsedPage(page)
    assert page.startswith("<!DOCTYPE html>\n<html")
    assert len(read.ids) == len(set(read.ids))
    assert not read.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?:|@import|url\(", page)


def test_names_are_shown_literally(page: str):
    read = ParsedPage(page)
    assert "<script" not in page
    assert read.words.count(HOSTILE) >= 5
    assert read.links == ["#content", "#one", f"runs/{HOSTILE}"]


def test_numbers_have_the_one_format(page: str):
    assert "1234.5" not in page
    assert "1234 50% 2 runs" in page


def test_a_table_scrolls_in_a_region_that_the_keyboard_reaches(page: str):
    head = re.findall(r'<div class="card scroll"[^>]*>', page)
    assert len(head) == 1
    assert 'role="region"' in head[0]
    assert 'tabindex="0"' in head[0]
    assert 'aria-label="Runs ' in head[0]
    assert page.count('scope="col"') == 3
    assert page.count('scope="row"') == 2


def test_a_page_has_a_language_landmarks_and_a_skip_link(page: str):
    assert '<html lang="en">' in page
    assert {"header", "main", "footer", "nav"} <= ParsedPage(page).tags
    assert page.index('href="#content"') < page.index("<header>")
    assert '<main id="content">' in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_color_schemes_are_declared(page: str, scheme: str):
    before, _, dark = page.partition("prefers-color-scheme: dark")
    declared = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark if scheme == "dark" else before)
    )
    assert declared == css_variables(scheme)


def test_every_variable_that_is_used_is_declared(page: str):
    assert set(re.findall(r"var\(--([\w-]+)\)", page)) <= set(css_variables("light"))


def test_printing_uses_the_light_colors(page: str):
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media print" in page


def test_a_missing_value_is_an_error_and_not_a_gap(monkeypatch: pytest.MonkeyPatch):
    loader = jinja2.DictLoader({"test.html.j2": "{{ missing }}"})
    monkeypatch.setattr(html, "PackageLoader", lambda *_: loader)
    with pytest.raises(jinja2.UndefinedError, match="'missing' is undefined"):
        render_page("test.html.j2")
