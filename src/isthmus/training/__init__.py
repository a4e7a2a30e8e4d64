"""The training loop and what stands around it: freezing, optimisers, checkpoints, guards, the feature store."""
