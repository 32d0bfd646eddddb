"""Keeps what is there equal to what is wanted: pure planners, the loop that applies them, state in SQLite."""
