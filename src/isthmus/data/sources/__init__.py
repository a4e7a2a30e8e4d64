"""Readers of data sets: tar shards, folders with a table, LLaVA conversations, the built-in world."""
