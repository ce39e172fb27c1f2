"""Each company of the awards and the SAM.gov entity that it is, if it is one.

Only companies that are new or say something else than before are compared, and all of them when SAM's entities or the
rules have changed.
"""

from __future__ import annotations

from pipelines.sbir import matching

MARKED = """
select *, md5(concat_ws('|', normalized_name, coalesce(uei, ''), coalesce(duns, ''), coalesce(city, ''), coalesce(state, ''),
    coalesce(zip, ''))) as input_hash
from c
"""


def build(context):  # type: ignore[no-untyped-def]
    companies = context.ref("enriched.award_companies").query("c", MARKED).pl()
    registered = context.ref("enriched.sam_names")
    mark = registered.query("e", "select count(*) || ':' || coalesce(bit_xor(hash(e)), 0) from e").fetchone()[0]
    rules = matching.Rules.of(context.var("sbir.enrichment", {}))
    before = matching.still_true(context.previous and context.previous.pl(), companies, mark)
    changed = companies.join(before, on="company_id", how="anti")
    if not changed.height and before.height:
        return before
    entities = registered.pl() if changed.height else registered.limit(0).pl()
    context.log.info("comparing %s of %s companies with %s entities", changed.height, companies.height, entities.height)
    return matching.with_new(before, matching.match(changed, entities, rules), changed, mark)
