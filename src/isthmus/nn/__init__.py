"""Blocks that know neither image nor text: attention, transformer, positions, patches, pooling."""
