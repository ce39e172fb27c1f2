"""What the assets are given: the repository of the telemetry."""

from .lakefs import LakeFSResource

__all__ = ["LakeFSResource"]
