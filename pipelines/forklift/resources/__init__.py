"""What the assets are given: the repository of the telemetry."""

from .lakefs import COMES_BACK, LakeFSResource

__all__ = ["COMES_BACK", "LakeFSResource"]
