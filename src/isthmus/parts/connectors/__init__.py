"""Connectors: from patch tokens to visual tokens in the language model's space."""
