"""One module per role: `run(settings) -> int` serves until SIGTERM.

It calls `ops.readiness.mark_ready` once it serves.
"""
