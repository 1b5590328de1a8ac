"""chomp: pretrain small Megalodon language models, with runs that resume bit for bit."""

__version__ = "0.1.0"
