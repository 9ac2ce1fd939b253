"""One study per file: `nnheads <file name>` runs its `main`. Files that start with _ are shared."""
