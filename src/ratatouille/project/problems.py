"""A mistake in a file as the error that a person sees."""

from __future__ import annotations

import re

from ratatouille.errors import RequestError, underline
from ratatouille.project.records import Problem


def as_error(problem: Problem) -> RequestError:
    """A problem as the error that a person sees."""
    where = problem.path
    message = problem.message
    if re.match(r"(a|an|the|this|these|there|only|one|two|build|what|vars|unknown)\b", message):
        message = message[:1].upper() + message[1:]  # but never the name of an asset or a key
    if problem.line:
        where = underline(problem.path, problem.line, problem.column, problem.length, problem.text)
    hint = problem.hint[:1].upper() + problem.hint[1:]
    return RequestError(message, where=where, next=hint)
