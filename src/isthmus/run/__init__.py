"""The verbs: train, evaluate, ask, show, demo. Start reading at `train.py`."""
