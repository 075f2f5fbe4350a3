"""What training alone would answer: the rivals that stand beside every score."""
