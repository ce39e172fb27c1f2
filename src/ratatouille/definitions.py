"""The code location of a whole project: `dagster dev -m ratatouille.definitions`."""

from ratatouille.dagster.root import defs as defs
