"""SQL as the parser sees it: one select or not, where it is wrong, what it reads, what never stays the same.

Only DuckDB's dialect is spoken. A statement that the parser knows only as a `Command` is unknown, and refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError

from ratatouille.errors import RequestError, near_miss, underline

# "Falling back to parsing as a 'Command'": we refuse those with words of our own.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_QUERIES = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values, exp.Pivot)
_LOOKS = (exp.Describe, exp.Summarize)
_CHANGES = (exp.DDL, exp.DML, exp.Command, exp.Into, exp.Drop, exp.Set, exp.Pragma, exp.Attach, exp.Detach)
_VOLATILE_CALLS = {
    *("now", "today", "random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "get_current_timestamp"),
    *("get_current_time", "transaction_timestamp", "current_localtimestamp", "current_localtime", "nextval"),
    *("currval", "getenv", "txid_current", "current_timestamp", "current_date", "current_time", "getvariable"),
}
_VOLATILE_WORDS = {"current_timestamp", "current_date", "current_time", "localtimestamp", "localtime"}
_READS_FILES = re.compile(r"(read|scan|sniff)_(csv|csv_auto|json\w*|ndjson\w*|parquet|text|blob|xlsx)|\w+_scan|glob")
_HIDES_TABLES = {"query", "query_table"}
_FILE_PATH = re.compile(r"[/\\*]|\.(csv|tsv|json|jsonl|ndjson|parquet|xlsx|gz|zst|duckdb|db)$", re.IGNORECASE)
_STRINGS = re.compile(r"'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|--[^\n]*|/\*.*?\*/|[^'\"/-]+|[/-]", re.DOTALL)


class SqlMistake(Exception):
    """What is wrong, and the span of the text: an offset from 0 and a length."""

    def __init__(self, message: str, start: int = 0, length: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.start = start
        self.length = max(1, length)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Query:
    """One select. `text` ends with its last word: no semicolon, no comment after it."""

    text: str
    tokens: Sequence[Token]
    tree: exp.Expr


@dataclass(frozen=True, slots=True)
class Span:
    """A word of the query at an offset."""

    name: str
    start: int
    length: int


@lru_cache(maxsize=1)
def _duckdb() -> Dialect:
    return Dialect.get_or_raise("duckdb")


def parse_query(sql: str, *, looks: bool = False) -> Query:
    """The one select in `sql`. `looks` allows DESCRIBE and SUMMARIZE too. Raises SqlMistake."""
    try:
        tokens = _duckdb().tokenize(sql)
    except TokenError as error:
        start = _unfinished(sql)
        raise SqlMistake("a quote or a comment is opened here and never closed", start) from error
    try:
        parsed = _duckdb().parser().parse(tokens, sql)
    except ParseError as error:
        raise _syntax_mistake(error, tokens) from error
    except RecursionError:
        raise SqlMistake("this SQL is nested too deeply") from None
    # A comment after the last semicolon parses as a statement of its own.
    trees = [tree for tree in parsed if tree is not None and not isinstance(tree, exp.Semicolon)]
    if not trees:
        raise SqlMistake("there is no select here")
    if len(trees) > 1:
        second = next((i for i, t in enumerate(tokens[:-1]) if t.token_type == TokenType.SEMICOLON), 0) + 1
        raise SqlMistake("one select is allowed, and here a second statement starts", *_span(tokens[second]))
    tree = trees[0]
    allowed = (*_QUERIES, *_LOOKS) if looks else _QUERIES
    change = next(iter(tree.find_all(*_CHANGES)), None)
    if not isinstance(tree, allowed) or change is not None:
        if isinstance(tree, (exp.Condition, exp.Alias)):  # a lone expression: `selec 1`
            raise SqlMistake("this is not a select", *_span(tokens[0]), near_miss(tokens[0].text, ["select"]).strip())
        word = type(change).__name__.upper() if isinstance(tree, allowed) else tokens[0].text.upper()
        raise SqlMistake(f"only a select is allowed here, and this is {word}", *_span(tokens[0]))
    words = [token for token in tokens if token.token_type != TokenType.SEMICOLON]
    return Query(sql[: words[-1].end + 1], words, tree)


def parse_select(sql: str) -> None:
    """Returns when `sql` is exactly one statement that only reads; RequestError says what it is instead."""
    try:
        parse_query(sql, looks=True)
    except SqlMistake as mistake:
        line = sql.count("\n", 0, mistake.start) + 1
        column = mistake.start - (sql.rfind("\n", 0, mistake.start) + 1) + 1
        text = (sql.split("\n") or [""])[line - 1]
        message = str(mistake)
        raise RequestError(
            f"This query cannot run: {message}.",
            where=underline("query", line, column, min(mistake.length, len(text) - column + 1), text),
            next=mistake.hint or "A query is one SELECT, WITH, FROM, VALUES, PIVOT, DESCRIBE or SUMMARIZE.",
        ) from None


def canonical(query: Query) -> str:
    """The query's words without comments and layout.

    Words of the token stream, and not text that the parser prints from its tree: that text changes with the
    parser's version, and an upgrade must not rebuild a lake.
    """
    parts: list[str] = []
    last = len(query.tokens) - 1
    for index, token in enumerate(query.tokens):
        kind, text = token.token_type, token.text
        if kind == TokenType.STRING:
            text = "'" + text.replace("'", "''") + "'"
        elif kind == TokenType.IDENTIFIER:
            text = '"' + text.replace('"', '""') + '"'
        elif kind != TokenType.VAR or (index < last and query.tokens[index + 1].token_type == TokenType.L_PAREN):
            text = text.lower() if kind.name not in _VERBATIM else f"{kind.name}{text!r}"
        parts.append(text)
    return " ".join(parts)


_VERBATIM = {name for name in TokenType.__members__ if name.endswith("STRING") and name != "STRING"}


def columns_of_expression(expression: str) -> tuple[str, ...]:
    """The columns in an expression over one row, sorted. Raises SqlMistake when it is none."""
    query = parse_query(f"select (\n{expression}\n)")
    for tree in query.tree.find_all(exp.Query):
        if tree is not query.tree:
            raise SqlMistake("an expression is about one row; a query goes into a check of kind sql")
    if query.tree.find(exp.Table) or len(query.tree.expressions) != 1 or query.tree.find(exp.AggFunc, exp.Window):
        raise SqlMistake("an expression is about one row, like amount <= total")
    return tuple(sorted({column.name for column in query.tree.find_all(exp.Column)}))


def volatile_calls(query: Query) -> tuple[str, ...]:
    """The functions in the query whose result changes without a change of input, sorted."""
    calls = {span.name for span in _calls(query.tokens) if span.name in _VOLATILE_CALLS}
    for before, token in zip([None, *query.tokens], query.tokens, strict=False):
        dotted = before is not None and before.token_type == TokenType.DOT
        if token.token_type != TokenType.IDENTIFIER and token.text.lower() in _VOLATILE_WORDS and not dotted:
            calls.add(token.text.lower())
    return tuple(sorted(calls))


def reads_files(query: Query) -> Iterator[SqlMistake]:
    """Every place where the query reads files, or tables by a text, past `source` and `ref`."""
    for span in _calls(query.tokens):
        if span.name in _HIDES_TABLES:
            message = f"{span.name}() hides which table is read"
            yield SqlMistake(message, span.start, span.length, "use {{ ref('...') }}")
        elif _READS_FILES.fullmatch(span.name):
            message = f"{span.name}() reads files that nobody remembers"
            yield SqlMistake(message, span.start, span.length, "use {{ source('landing/...') }} for landing files")
    for table in query.tree.find_all(exp.Table):
        start = table.this.meta.get("start") if isinstance(table.this, exp.Identifier) else None
        quoted_path = start is not None and query.text[start] == '"' and not table.args.get("db")
        if start is None or not (query.text[start] == "'" or (quoted_path and _FILE_PATH.search(table.name))):
            continue
        message = f"'{table.name}' is a file that nobody remembers"
        length = len(table.name) + 2
        yield SqlMistake(message, start, length, "use {{ source('landing/...') }} for landing files")


def placeholders(query: Query) -> set[tuple[str, str]]:
    """(ref, silver.sales), (changes, silver.sales) or (source, name): the placeholders that are part of the query."""
    found = set()
    for index, token in enumerate(query.tokens):
        if token.token_type == TokenType.IDENTIFIER and token.text in ("ref:", "changes:", "source:"):
            words = [word.text for word in query.tokens[index + 2 : index + (3 if token.text == "source:" else 5) : 2]]
            found.add((token.text[:-1], ".".join(words)))
    return found


def _calls(tokens: Sequence[Token]) -> Iterator[Span]:
    for index, token in enumerate(tokens[:-1]):
        if tokens[index + 1].token_type != TokenType.L_PAREN or token.token_type == TokenType.STRING:
            continue
        if token.text[:1].isalpha() or token.text[:1] == "_":
            yield Span(token.text.lower(), *_span(token))


def _span(token: Token) -> tuple[int, int]:
    return token.start, token.end - token.start + 1


def _syntax_mistake(error: ParseError, tokens: Sequence[Token]) -> SqlMistake:
    detail = error.errors[0] if error.errors else {}
    line, column = detail.get("line") or 0, detail.get("col") or 0
    token = next((t for t in tokens if (t.line, t.col) == (line, column)), tokens[-1] if tokens else None)
    hint = near_miss(tokens[0].text, ["select", "with", "from"]).strip() if tokens else ""
    if hint and tokens[0].token_type == TokenType.VAR:
        return SqlMistake("this is not a select", *_span(tokens[0]), hint)
    description = str(detail.get("description") or "it cannot be read").split(". Line")[0].split(" but got <")[0]
    description = description.rstrip(".")
    plain = {"Invalid expression / Unexpected token": "this word is not expected here"}
    message = f"SQL syntax: {plain.get(description, description[:1].lower() + description[1:])}"
    return SqlMistake(message, *_span(token)) if token else SqlMistake(message)


def _unfinished(sql: str) -> int:
    end = 0
    while match := _STRINGS.match(sql, end):
        opened = match.group() in "/-" and sql.startswith("/*", match.start())
        if opened or match.end() == end:
            return match.start()
        end = match.end()
    return min(end, max(0, len(sql) - 1))
