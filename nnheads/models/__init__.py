"""Load a model under one set of names, and say what its heads look like and what it is given."""
