"""What of a kind must be sent: as SQL, for whoever has the tables. Two steps, both set-based.

verdict   one narrow row for each row of the source and each thing that the graph holds: its keys, what the graph holds
          (`before`), what it should hold (`content_hash`), and what follows (`change`, `refusal`)
changed   the wide rows, with all properties, of those that are created or updated

The names that the SQL asks for: the source's own tables, `known` (keys and content_hash: what the graph holds),
`verdict` (the first step's answer), and for relations `starts` and `ends` (the keys of nodes that are in the graph).
"""

from __future__ import annotations

from pipelines.sbir.graph.interface import MISSING_END, keys_of
from pipelines.sbir.graph.model import Kind, Node, Relation

SQL_TYPES = {
    "text": "varchar",
    "number": "double",
    "whole": "bigint",
    "flag": "boolean",
    "day": "date",
    "moment": "timestamp",
    "texts": "varchar[]",
}
NO_KEY = "no key"
TWICE = "the same key twice"


def verdict(kind: Kind) -> str:
    """Columns: the keys, content_hash, before, change (created, updated, unchanged, withdrawn, refused), refusal."""
    keys = ", ".join(keys_of(kind))
    return f"""
    with hashed as ({_hashed(kind)}),
    given as (
      select {keys}, content_hash, {_refusal(kind)} as refusal from hashed {_joined(kind)}
    ),
    held as (select {keys}, coalesce(content_hash, '') as before from known)
    select
      {keys}, given.content_hash, before, refusal,
      case
        when given.content_hash is null then 'withdrawn'
        when refusal is not null then 'refused'
        when before is null then 'created'
        when before = given.content_hash then 'unchanged'
        else 'updated'
      end as change
    from given full join held using ({keys})
    """


def changed(kind: Kind, *, doubles: bool) -> str:
    """The rows that are created or updated: keys, content_hash, before, properties; each key once.

    `doubles`: the verdict has found keys that come twice.
    """
    keys = ", ".join(keys_of(kind))
    once = f"distinct on ({keys})" if doubles else ""
    return f"""
    with hashed as ({_hashed(kind)})
    select {once} hashed.*, verdict.before
    from hashed join verdict using ({keys}, content_hash)
    where change in ('created', 'updated')
    """


def _hashed(kind: Kind) -> str:
    """The source, typed, with the hash of what is sent: numbers as the graph has them, whatever the lake's types."""
    keys = [kind.key] if isinstance(kind, Node) else list(keys_of(kind))
    columns = [f'cast("{said}" as varchar) as {name}' for said, name in zip(keys, keys_of(kind), strict=True)]
    columns += [f'cast("{one.name}" as {SQL_TYPES[one.kind]}) as "{one.name}"' for one in kind.properties]
    said = ", ".join(f'"{one.name}" := "{one.name}"' for one in kind.properties)
    digest = f"md5(cast(to_json(struct_pack({said})) as varchar))" if said else "md5('')"
    return f"select *, {digest} as content_hash from (select {', '.join(columns)} from ({kind.source}))"


def _refusal(kind: Kind) -> str:
    """Why the graph would not take the row; null if it would."""
    keys = [f"hashed.{name}" for name in keys_of(kind)]
    listed = ", ".join(keys)
    cases = [f"when {' or '.join(f'{key} is null' for key in keys)} then '{NO_KEY}'"]
    cases.append(f"when row_number() over (partition by {listed} order by hashed.content_hash) > 1 then '{TWICE}'")
    if isinstance(kind, Node):
        for name in kind.unique:
            cases.append(
                f'when "{name}" is not null and row_number() over (partition by "{name}" order by {listed}) > 1'
                f" then '{name} is that of another'"
            )
    else:
        cases.append(f"when starts.key is null then '{MISSING_END}: {kind.start.label}'")
        cases.append(f"when ends.key is null then '{MISSING_END}: {kind.end.label}'")
    return f"case {' '.join(cases)} end"


def _joined(kind: Kind) -> str:
    if not isinstance(kind, Relation):
        return ""
    return "left join starts on starts.key = hashed.start_key left join ends on ends.key = hashed.end_key"
