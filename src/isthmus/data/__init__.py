"""Samples, pictures, text and batches: from files to what a model sees."""
