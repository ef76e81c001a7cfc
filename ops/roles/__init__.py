"""One module per role: `run(settings) -> int` serves until SIGTERM and calls `ops.readiness.mark_ready` when ready."""
