"""From a checked recipe to objects: the only code below `run` that knows both sides."""
