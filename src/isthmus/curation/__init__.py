"""Making data with models: instruction data from captions and boxes."""
