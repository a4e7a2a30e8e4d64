"""CapFilt: captions are written beside those that are there, and a filter keeps what belongs to its picture."""
