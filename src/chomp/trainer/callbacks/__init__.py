"""Work that the training loop does at some steps: metrics, evaluation, samples, checkpoints."""
