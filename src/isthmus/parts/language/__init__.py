"""Language models and text encoders."""
