"""What every layer shares: errors, sizes, batches, protocols, randomness, devices."""
