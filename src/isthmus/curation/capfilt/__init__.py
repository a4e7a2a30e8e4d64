"""Captions that a model writes and captions that a model believes: CapFilt's decisions and the data set they make."""
