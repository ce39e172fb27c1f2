"""PAGES: the workspace in a browser. Shows what ledger, journal and files say; changes nothing.

    reading.py     what every page is made from: the files, the journal, the lake
    overview.py    facts: the health of every asset, the newest runs
    asset.py       facts: one asset
    run.py         facts: one run
    html.py        facts become HTML: templates, escaping, how numbers and times look
    guard.py       who may ask: Host, Origin, session, and what a browser is told to refuse
    server.py      addresses

facts      what a page shows, as plain records without a tag of HTML; sensitive columns are masked in them already
page       a template filled with facts

Every value that comes from outside (names, rows, messages) is text to these pages, and never markup.
"""
