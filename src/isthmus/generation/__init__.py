"""Writing text: greedy, sampling and beam search over any Hugging Face causal language model."""
