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


# Which rows there are, in any order and however they are numbered.
MARK = "select count(*) || ':' || coalesce(bit_xor(hash(e)), 0) from (select * exclude (entity_id) from r) as e"
SHOWN = "select * from registered semi join wanted using (entity_id)"


def build(context):  # type: ignore[no-untyped-def]
    companies = context.ref("enriched.award_companies").query("c", MARKED).pl()
    file, api = context.ref("enriched.sam_names"), context.ref("enriched.sam_api_names")
    registered = context.query("from file union all by name from api", file=file, api=api)
    mark = registered.query("r", MARK).fetchone()[0]
    rules = matching.Rules.of(context.var("sbir.enrichment", {}))
    before = matching.still_true(context.previous and context.previous.pl(), companies, mark)
    changed = companies.join(before, on="company_id", how="anti")
    if not changed.height and before.height:
        return before
    context.log.info("comparing %s of %s companies with those of SAM.gov", changed.height, companies.height)

    def shown(wanted):  # type: ignore[no-untyped-def]
        return context.query(SHOWN, registered=registered, wanted=wanted.to_frame()).pl()

    entities = registered.select(*matching.MATCHED_COLUMNS).pl()
    return matching.with_new(before, matching.match(changed, entities, rules, shown), changed, mark)
