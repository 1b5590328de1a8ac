"""Where documents come from: files, datasets of the Hugging Face Hub, URLs."""
