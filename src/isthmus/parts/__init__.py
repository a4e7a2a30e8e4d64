"""The modules that models assemble: vision encoders, connectors, fusion, language models, text encoders."""
