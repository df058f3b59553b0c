"""HTML pages from the templates beside this file; everything that is inserted is escaped.

A page is one file: its style and its plots are inside it, and it needs no network and no script.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from offline_cql.render.colors import css_variables
from offline_cql.render.numbers import format_count, format_interval, format_number, format_share


def render_page(template: str, **values: Any) -> str:
    """Return the page of a template that extends base.html.j2.

    Raises jinja2.UndefinedError when the template uses a value that is missing.
    """
    environment = Environment(
        loader=PackageLoader("offline_cql", "render/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=format_number, interval=format_interval, share=format_share, count=format_count
    )
    light, dark = css_variables("light"), css_variables("dark")
    return environment.get_template(template).render(values, light=light, dark=dark) + "\n"
