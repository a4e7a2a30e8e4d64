"""One file a model kind; each assembles parts and knows nothing of losses, data or recipes."""
