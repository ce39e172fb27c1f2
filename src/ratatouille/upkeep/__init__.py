"""UPKEEP: what keeps a lake small, whole and explained. Nothing here builds an asset."""
