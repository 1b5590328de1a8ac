"""`chomp export`: a run's model for other programs, compared with the original."""
