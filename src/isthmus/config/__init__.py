"""Recipes as data: a closed, frozen schema that never imports torch, so that a recipe is checked in under a second."""
