"""Weights of other projects: reading and writing their checkpoint layouts."""
