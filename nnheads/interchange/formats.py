"""The names of the formats that lists of heads are read from and written to.

Each one is described where it is read: `lists`, `circuits`, `masks`, `pyvene`, `saved_edits`,
`own_json` and, for netCDF, `run_tables`.
"""

from __future__ import annotations

LISTS = (
    "retrieval_head",
    "scores",
    "records",
    "qrhead",
    "qrhead_config",
    "function_vectors",
    "array",
    "fold",
)
TENSORS = ("tensor", "indirect_effect")
FOLDERS = ("pyvene", "intervention")  # written as a folder
GATES = "duo_attention"  # of key/value heads, a folder or a table alone
ANY_UNIT = (GATES, "nnheads", "netcdf")  # the others list query heads alone
FORMATS = (*LISTS, *TENSORS, GATES, "pyvene", "mib", "intervention", "nnheads", "netcdf")
JSON = ("retrieval_head", "scores", "records", "qrhead", "function_vectors", "mib", "nnheads")
ENDINGS = {
    **dict.fromkeys(JSON, ".json"),
    "qrhead_config": ".yaml",
    "array": ".npy",
    "fold": ".npy",
    "tensor": ".pt",
    "indirect_effect": ".pt",
    "duo_attention": ".tsv",
    "netcdf": ".nc",
}
