"""Mechanism 3: an edit as a value that can be saved."""
