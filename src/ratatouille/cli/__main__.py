"""`python -m ratatouille.cli` is `rat`."""

from ratatouille.cli import main

main()
