"""Policies scored on synthetic walks and on GPS traces. Deterministic: the same seed or file gives the same scores.

`journeys` is where users go, `traces` reads recorded positions, `scoring` judges policies: the first half of a journey
teaches, the second half scores.
"""
