"""Published claims about models as data, one file a model, and what they are measured with.

A file is JSON: `model` (a Hub id), `aliases`, `note`, `grids` (name -> rows of numbers, layer by
head) and `claims`. A claim has

id         a short name, for --only
claim      what is said, in words
source     who says it, where
kind       value (close to `published`), at_least or at_most
published  the number
tolerance  how far off still passes (0)
warn       how far off is only a warning (tolerance)
requires   the id of another claim, without which this one says nothing (that copying ends without
           some heads, of a model that never copied): where that one does not pass, this one is
           skipped; may be left out
negative   true if the number shows that what the claim says is not so, or does not work
how        {"measure": name, ...options}, see `measures`; claims with the same `how` share one
           measurement
where      which number of that measurement: {"variable": v}, and
           "head": "9.6"; or
           "heads": [...] with "reduce": mean, min, max or sum; or
           "reduce" alone, over all heads; or
           "heads" with "among_top": k or "among_bottom": k, how many of them are among the k
           strongest (weakest); or
           "count_above" or "share_above": x, over all heads; or
           "correlation": name of a grid (Pearson)

To add claims, copy a file, change it, and name it with `nnheads verify MODEL --claims FILE`.
"""

from __future__ import annotations
