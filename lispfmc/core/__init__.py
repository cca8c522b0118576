"""Decisions that the daemons share. Pure: time and nonces come in as arguments, effects go out as values."""
