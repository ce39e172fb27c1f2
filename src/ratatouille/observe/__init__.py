"""WHAT HAPPENED: history compared, what is unusual in it, and who is told. Reads ledger and journal, and builds nothing.

compare.py     two runs or two versions, side by side
"""

from ratatouille.observe.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
