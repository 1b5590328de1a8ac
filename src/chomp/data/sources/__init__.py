"""Sources of documents: files, datasets of the Hugging Face Hub, URLs."""
