"""The Hugging Face folder; its two modules of PyTorch are copied into it as they are."""
