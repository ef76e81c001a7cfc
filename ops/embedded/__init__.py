"""The servers of the embedded profile: how each is prepared, started and known to be ready."""
