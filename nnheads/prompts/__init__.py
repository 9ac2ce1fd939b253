"""Stimulus sets, one file each. A prompt set is an xr.Dataset of token ids with labelled roles."""
