"""What starts the job by itself."""

from .lakefs import lakefs_new_commit_sensor, new_commit_sensor

__all__ = ["lakefs_new_commit_sensor", "new_commit_sensor"]
