"""What the assets of this folder share: from tables of the lake to the graph, and back to a table of what is there.

The graph lies outside the lake's transaction, so the order is: the mark "loading" in the graph, the rows, the new mark;
then the lake publishes the receipts, which hold that mark. Whatever stops in between, the marks differ, and the next
load asks the graph itself what it holds. Nothing is believed that the graph does not confirm: its counts are
compared with the receipts too, before and after.

Receipts, one row for each row of the source: kind, its keys, content_hash (of what the graph holds; null: nothing),
status (loaded, dead_letter, withdrawn: gone from the source and still there, deleted: by this very load), change
(created, updated, unchanged, deleted), reason and row (of a dead letter), mark.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.sbir.graph import open_graph, standing_mark
from pipelines.sbir.graph.settings import graph_settings

from ratatouille import StepFailed, TransientError, workspace

Tables = Mapping[str, Any]
LOADING, OWNER = "loading ", "owner"


def mark_of(file: str, load: str, kinds: Sequence[Any]) -> str:
    """What the graph says that was loaded last: `version:` of an asset. Its change makes the asset stale."""
    here = workspace(file)
    return standing_mark(graph_settings(here.vars.get("sbir")), here.root, load, kinds)


def load(context: Any, file: str, kinds: Sequence[Any], tables: Tables, nodes: Any = None) -> Any:
    """Bring the graph to what the tables say, and give the receipts, as a relation.

    `kinds` are of pipelines.sbir.graph.model; `tables` the relations that their sources name; `nodes` the receipts of
    the nodes that relations join (kind, key, content_hash). Raises StepFailed, or TransientError where another try helps.
    """
    here = workspace(file)
    with _four_lines(context.asset), open_graph(graph_settings(here.vars.get("sbir")), here.root) as graph:
        return _Load(context, graph, tables, nodes).run(kinds)


def nodes_of(*receipts: Any) -> Any:
    """The receipts of several assets as one: what relations may join."""
    everything = receipts[0]
    for one in receipts[1:]:
        everything = everything.union(one)
    return everything


class _Load:
    def __init__(self, context: Any, graph: Any, tables: Tables, nodes: Any) -> None:
        self.context, self.graph, self.tables, self.nodes = context, graph, dict(tables), nodes
        self.loading = graph.loading
        self.began = False

    def run(self, kinds: Sequence[Any]) -> Any:
        from pipelines.sbir.graph.model import NODES, RELATIONS

        name = self.context.asset
        self._refuse_another_lakes()
        self.graph.prepare([*NODES, *RELATIONS])
        mark = self.graph.mark(name)
        believed = self._believed(mark)
        receipts = [self._load(kind, believed) for kind in kinds]
        if self.began:
            mark = secrets.token_hex(8)
            self.graph.set_mark(name, mark)
        self.context.stands_for(self.graph.standing(name, kinds))
        return self._table(receipts, mark)

    def _refuse_another_lakes(self) -> None:
        """What one lake loads, another would delete: a graph belongs to the environment that loaded it first."""
        from pipelines.sbir.graph.settings import environment

        self.owner = f"the environment {environment()}" if environment() else "the default lake"
        there = self.graph.mark(OWNER)
        if there not in ("", self.owner):
            raise StepFailed(
                f"{self.context.asset}: this graph is that of {there}, and this run is one of {self.owner}",
                where=self.graph.address,
                state="Nothing was changed in it.",
                next="give it a graph of its own (NEO4J_URI, or graph.path), then: rat run " + self.context.asset,
            )

    def _believed(self, mark: str) -> Any:
        """The receipts, if the graph has the mark that they were published with; else None."""
        receipts = self.context.previous  # none with -f: then the graph is asked
        if receipts is None or not mark:
            return None
        known = {
            row[0] for row in self.context.query("select distinct mark from receipts", receipts=receipts).fetchall()
        }
        if known == {mark}:
            return receipts
        if known:
            self.context.log.warning("the graph is not as this table says (stopped, restored or emptied): it is asked")
        return None

    def _load(self, kind: Any, believed: Any) -> Any:
        from pipelines.sbir.graph import delta

        known = self._known(kind, believed)
        names = {"known": known, **self._ends(kind), **self.tables}
        verdict = self._ask(delta.verdict(kind), names).to_arrow_table()
        counts = _counts(verdict)
        self._refuse_emptied(kind, counts, known.num_rows)
        dead = []
        doubled = bool(
            self._ask(f"select 1 from verdict where refusal = '{delta.TWICE}' limit 1", {"verdict": verdict}).fetchall()
        )
        if counts.get("created") or counts.get("updated"):
            self._begin()
            wide = self._ask(delta.changed(kind, doubles=doubled), {**names, "verdict": verdict})
            dead = self._send(kind, wide)
        n_gone = self._withdraw(kind, verdict, counts)
        receipts = self._receipts(kind, verdict, dead)
        self._compare(kind, receipts)
        said = ", ".join(f"{n:,} {change}" for change, n in sorted(counts.items()))
        self.context.log.info("%s: %s; %s dead letters, %s deleted", kind.name, said or "no rows", len(dead), n_gone)
        return receipts

    def _known(self, kind: Any, believed: Any) -> Any:
        """What the graph holds: by the receipts where its count agrees with them, else by asking it."""
        from pipelines.sbir.graph.interface import keys_of

        if believed is not None:
            keys = ", ".join(keys_of(kind))
            said = f"select {keys}, content_hash from receipts where kind = $kind and content_hash is not null"
            names = {"receipts": believed, **self._ends(kind)}
            if "starts" in names:
                # A node that was deleted took its relations with it.
                said += " and start_key in (select key from starts) and end_key in (select key from ends)"
            known = self._ask(said.replace("$kind", _text(kind.name)), names).to_arrow_table()
            if known.num_rows == self.graph.count(kind):
                return known
            self.context.log.warning("%s: the graph has another number of them than was loaded: it is asked", kind.name)
        return self.graph.state(kind)

    def _ends(self, kind: Any) -> dict[str, Any]:
        from pipelines.sbir.graph.model import Node

        if isinstance(kind, Node):
            return {}
        said = "select key from nodes where content_hash is not null and kind = "
        return {
            "starts": self._ask(said + _text(kind.start.name), {"nodes": self.nodes}),
            "ends": self._ask(said + _text(kind.end.name), {"nodes": self.nodes}),
        }

    def _begin(self) -> None:
        """From here on the graph is on its way, and says so."""
        if not self.began:
            self.graph.set_mark(OWNER, self.owner)
            self.graph.set_mark(self.context.asset, LOADING + self.context.run_id)
            self.began = True

    def _send(self, kind: Any, wide: Any) -> list[tuple[Any, str, str]]:
        """The keys, the reason and the row of each dead letter."""
        from pipelines.sbir.graph.interface import as_text, keys_of

        dead, total = [], {"created": 0, "updated": 0, "unchanged": 0, "retried": 0}
        # The graph remembers what it took, so no chunk is skipped on the word of a checkpoint.
        size = None if self.graph.by_memory else self.context.var("sbir.pipeline.chunk_sizes.graph")
        for rows in self.context.chunks(wide, size=size, form="arrow", resume=False):
            written = self.graph.write(kind, rows)
            for name in total:
                total[name] += getattr(written, name)
            for one in written.dead:
                keys = tuple(rows[name][one.number].as_py() for name in keys_of(kind))
                dead.append((keys, one.reason, as_text(rows, one.number)))
        self.context.log.info("%s, by the graph's own count: %s", kind.name, total)
        return dead

    def _withdraw(self, kind: Any, verdict: Any, counts: Mapping[str, int]) -> int:
        if not counts.get("withdrawn") or not self.loading.delete_withdrawn:
            return 0
        self._begin()
        gone = self._ask("select * from verdict where change = 'withdrawn'", {"verdict": verdict}).to_arrow_table()
        return int(self.graph.delete(kind, gone))

    def _refuse_emptied(self, kind: Any, counts: Mapping[str, int], n_known: int) -> None:
        n_gone = counts.get("withdrawn", 0)
        most = max(FEW, self.loading.max_delete_share * n_known)
        if self.loading.delete_withdrawn and n_gone > most:
            raise StepFailed(
                f"{self.context.asset}: {n_gone:,} of {n_known:,} {kind.name} left the source, more than"
                f" {self.loading.max_delete_share:.0%} (max_delete_share)",
                where=self.graph.address,
                state="Nothing was deleted; the graph and the lake are as before.",
                next=f"if it is meant, for this run: SBIR_ETL__NEO4J__LOADING__MAX_DELETE_SHARE=1 rat run {self.context.asset}",
            )

    def _receipts(self, kind: Any, verdict: Any, dead: Sequence[tuple[Any, str, str]]) -> Any:
        import pyarrow as pa
        from pipelines.sbir.graph.delta import TWICE
        from pipelines.sbir.graph.interface import keys_of

        keys = keys_of(kind)
        columns: dict[str, list[Any]] = {name: [one[0][n] for one in dead] for n, name in enumerate(keys)}
        columns |= {"reason": [one[1] for one in dead], "row": [one[2] for one in dead]}
        letters = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        listed = ", ".join(keys)
        gone = "'deleted'" if self.loading.delete_withdrawn else "'withdrawn'"
        said = f"""
        select {_text(kind.name)} as kind, {listed},
          case
            when refusal = '{TWICE}' or (change = 'withdrawn' and {gone} = 'deleted') then null
            when letters.reason is not null or change in ('refused', 'withdrawn') then before
            else content_hash
          end as content_hash,
          case
            when letters.reason is not null or change = 'refused' then 'dead_letter'
            when change = 'withdrawn' then {gone}
            else 'loaded'
          end as status,
          case
            when letters.reason is not null or change = 'refused' then null
            when change = 'withdrawn' then nullif({gone}, 'withdrawn')
            else change
          end as change,
          coalesce(letters.reason, refusal) as reason,
          letters.row
        from verdict left join letters using ({listed})
        """
        return self._ask(said, {"verdict": verdict, "letters": letters}).to_arrow_table()

    def _compare(self, kind: Any, receipts: Any) -> None:
        """What went in against what is there."""
        [(n_loaded,)] = self._ask("select count(content_hash) from receipts", {"receipts": receipts}).fetchall()
        n_there = self.graph.count(kind)
        if n_there != n_loaded:
            raise StepFailed(
                f"{self.context.asset}: the graph has {n_there:,} {kind.name}, and {n_loaded:,} were loaded",
                where=self.graph.address,
                state="The lake's record of the graph is as before; the next load asks the graph what it holds.",
                next=f"see that nobody else writes to it, then: rat run {self.context.asset}",
            )

    def _table(self, receipts: Sequence[Any], mark: str) -> Any:
        import pyarrow as pa

        everything = pa.concat_tables(receipts)
        return self._ask(f"select *, {_text(mark)} as mark from everything", {"everything": everything})

    def _ask(self, sql: str, names: Tables) -> Any:
        return self.context.query(sql, **names)


FEW = 100  # rows that may leave the source at once, whatever share they are


def _counts(verdict: Any) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in verdict["change"].value_counts().to_pylist()}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@contextmanager
def _four_lines(asset: str) -> Iterator[None]:
    from pipelines.sbir.graph.interface import GraphError

    try:
        yield
    except GraphError as error:
        kind = TransientError if error.transient else StepFailed
        raise kind(
            f"{asset}: {error.what}", where=error.where, state=error.state, next=f"{error.next}: rat run {asset}"
        ) from error
