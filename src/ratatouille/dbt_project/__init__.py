"""A dbt project on the lake: models as candidates, all tests on them, then one commit for the selection, or none.

copy       the project as it was when the run began: nothing can change under it
process    dbt itself, in a process of its own
project    what a selection consists of: models, tests, what it reads from outside
results    what dbt says came of it
publish    candidates as publications, and what the ledger says of them
build      the run: leases, pin, dbt, seal, publish

Nothing here imports dbt; `lake/dbt_plugin.py` and `lake/dbt_macros/` are what dbt loads.
"""
