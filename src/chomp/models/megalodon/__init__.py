"""Megalodon (Ma et al., 2024, arXiv:2404.08801), with fast layers for training and evaluation."""
