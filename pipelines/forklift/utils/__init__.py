"""What assets share: run-scoped views of what the lake holds."""
