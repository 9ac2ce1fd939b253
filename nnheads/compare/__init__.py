"""Runs side by side: atlas, stability, drift, and the difference of two runs."""
