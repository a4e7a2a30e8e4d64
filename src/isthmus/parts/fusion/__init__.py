"""Where visual tokens meet the text."""
