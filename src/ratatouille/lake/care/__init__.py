"""Looking after a lake: what is left over, what is unwell, what has changed under its checksums, and letting go of it."""
