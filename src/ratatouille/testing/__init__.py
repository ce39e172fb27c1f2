"""TESTING: run people's tests of their assets on rows that they give, in a lake that is gone afterwards."""

from ratatouille.testing.compare import Difference
from ratatouille.testing.run import CaseResult, Tested, run_cases

__all__ = ["CaseResult", "Difference", "Tested", "run_cases"]
