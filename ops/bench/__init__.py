"""Benches: the same work for us and for the peers, in one run, on one machine."""
