"""Vision encoders: from pixels to patch tokens."""
