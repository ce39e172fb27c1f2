"""WHAT HAPPENED: history compared, what is unusual in it, and who is told. Reads ledger and journal, and builds nothing.

    compare.py     two runs or two versions, side by side
    baseline.py    what is usual, and how far from it is far: numbers only
    findings.py    what is unusual about a step: regressions, anomalies, pressure
    events.py      what a step, a run or a table says of each thing that a rule may be about
    states.py      what is wrong now as far as each rule is concerned, and what of it was told
    messages.py    what a person reads
    channels.py    where it goes
    outbox.py      messages that were decided and not yet delivered
    alerts.py      a look: events, states, messages, delivery
    after.py       what is done at the end of a run

The modules are named where they are used: a run that has nothing to tell loads none of them.
"""
