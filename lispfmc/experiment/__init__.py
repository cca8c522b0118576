"""Experiments: many moves on a running lab, in an order drawn by lot, and what they come to."""
