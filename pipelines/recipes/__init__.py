"""Recipes: from raw text to an evaluated language model, each step guarded."""

from .definitions import all_asset_checks, all_assets, all_jobs, defs

__all__ = ["all_asset_checks", "all_assets", "all_jobs", "defs"]
