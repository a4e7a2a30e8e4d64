"""How good the answers, captions and rankings are, with intervals, and whether the picture mattered."""
