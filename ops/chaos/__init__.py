"""Real kills of real processes, and what must hold afterwards."""
