"""PAGES: the workspace in a browser. Shows what ledger, journal and files say; changes nothing.

    reading.py, kitchen.py     what every page is made from: the files, the journal, the lake, which stays open
    overview.py                facts: the health of every asset, the newest runs
    asset.py, history.py, lineage.py, code.py    facts: one asset, its past, its neighbours, its code
    run.py, books.py           facts: one run; what a comparison asks
    masking.py                 values of sensitive columns in the words of the database
    charts.py, graph.py, drawings.py    pictures: how they are drawn, and of which facts
    words.py, html.py          facts become HTML: addresses, how numbers and times look, templates, escaping
    guard.py, server.py, serve.py       who may ask, which address is which page, a port
    console*.py                one SELECT, in a process of its own
    report.py, site.py, dictionary.py   the same facts as a file to mail, and as a site without a server

facts      what a page shows, as plain records without a tag of HTML; sensitive columns are masked in them already
page       a template filled with facts

Every value that comes from outside (names, rows, messages) is text to these pages, and never markup.
"""
