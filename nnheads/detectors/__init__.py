"""Head types, one a file, named like its function.

A detector file says what to show the model (STIMULUS, a key of `detection.STIMULI`), which
statistic is its headline (HEADLINE), where the idea is from (SOURCE), and has one function (model,
prompts, *, remote=False) -> float32 statistics (batch, layer, head). With GENERATES it also takes
`answers`, so that types about what the model writes share the writing. Adding a file adds a head
type.
"""
