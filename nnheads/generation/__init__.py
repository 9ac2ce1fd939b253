"""Let a model answer, and measure its heads while it does."""
