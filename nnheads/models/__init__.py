"""Load a model under one set of names, read its sizes, and turn prompts into its inputs.

model = load("gpt2")
geometry(model).heads
model.trace(**inputs(model, prompts))
"""
