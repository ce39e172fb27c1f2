"""HTML: a template filled with facts. Whatever a fact holds is escaped.

The templates are our own and nobody else's; they run in a sandbox all the same, so there is one way to run any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from ratatouille.observe.compare import differences
from ratatouille.pages import drawings
from ratatouille.pages.words import LONGEST_CELL as LONGEST_CELL
from ratatouille.pages.words import (
    ago,
    asset_href,
    cell,
    count,
    dagster_href,
    overview_href,
    plural,
    run_href,
    seconds,
    share,
    size,
    stamp,
    when,
)

# What a form of this session must bring; the guard sets it for each request.
form_token: ContextVar[str] = ContextVar("form_token", default="")
HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"


def page(name: str, **facts: Any) -> str:
    """The template `name` of templates/ with these facts. A fact that is missing is an error, not a gap."""
    return environment().get_template(name).render(facts)


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(FILTERS)
    made.globals.update(
        asset_href=asset_href,
        dagster_href=dagster_href,
        run_href=run_href,
        overview_href=overview_href,
        token_field=token_field,
        spark=drawings.spark,
        figure_chart=drawings.figure_chart,
        run_timeline=drawings.run_timeline,
        compared_rows=drawings.compared_rows,
        matters=drawings.matters,
        most_changed_first=drawings.most_changed_first,
        comparison_lines=lambda asset: list(differences(asset)),
    )
    return made


def token_field() -> Markup:
    """A hidden field for every form that is posted."""
    return Markup('<input type="hidden" name="token" value="{}">').format(form_token.get())


FILTERS: Mapping[str, Callable[..., str]] = {
    "count": count,
    "seconds": seconds,
    "size": size,
    "share": share,
    "when": when,
    "stamp": stamp,
    "ago": ago,
    "cell": cell,
    "plural": plural,
}
