"""Losses: each turns what a model encoded into named terms."""
