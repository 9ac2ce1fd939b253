# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How do I show this to somebody?
#
# After a week there are twenty folders of results. A colleague asks what you found, and has no Python at hand. Can all
# of it go into one file, that opens anywhere, and that can be trusted: is each number on it the measured one, and does
# the file do nothing but show?
#
# `nnheads report` makes such a page. We make some runs, make the page, and then take it apart.
#
# In a shell you would type `nnheads detect all`. Here the same commands run inside the notebook's own process, which
# saves starting Python and loading libraries each time.

# %%
import io
from contextlib import redirect_stdout

from nnheads import command

with redirect_stdout(io.StringIO()):  # what the runs say; it is all in their files
    command("detect all --limit 12 --quiet -o runs")
    command("ioi --limit 40 --quiet -o runs")
    command("knockout --behaviour induction --limit 16 --draws 8 --quiet -o runs")
command("report runs --attention reference --quiet -o report.html")

# %% [markdown]
# ![a head's card beside the map of all heads](report.png)
#
# That is the page, opened in a browser, with a few runs more than here.
#
# * **The map** has a cell for every head. *Colour by* chooses what was measured: where heads look, what they do to an
#   answer. A frame marks heads beyond chance.
# * **A card** opens on a click: every score of that head with its interval, its null and its rank; what happens when
#   it is knocked out; and, because we said `--attention`, where it looks in two short texts.
# * **Tables** can be sorted and downloaded: what was measured, which scores name the same heads, and whether other
#   prompts would. At the end stands each run: its command, versions, commit and files.
#
# Only `--attention` loads a model. The rest is read from the files of the runs.
#
# ## 1. The numbers behind it
#
# Everything shown is in the file once, as JSON, and a script that lies beside it draws it. So the page can be read by a
# program as well. This is the card of one head:

# %%
import json
import re
from pathlib import Path

import pandas as pd

page = Path("report.html").read_text(encoding="utf-8")
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
data = json.loads(DATA.search(page)[1])
model = data["models"][0]
layer, head = 1, 0
place = layer * model["heads"] + head
card = {}
for score in model["scores"]:
    if score["headline"] and score["values"][place] is not None:
        parts = ("values", "low", "high", "null", "flag")
        card[score["kind"]] = {name: score[name][place] if score[name] else None for name in parts}
pd.DataFrame(card).T.astype(float).sort_values("values", ascending=False).round(3).rename(columns={"values": "value"})

# %% [markdown]
# Are these the measured numbers? Every headline on the page against the netCDF file that its run wrote:

# %%
import numpy as np

from nnheads.runs import store

rows = {}
for score in model["scores"]:
    run = data["runs"][score["run"]]
    if score["headline"] and run["recipe"] in ("detect", "ioi"):
        heads = store.load(Path("runs") / run["folder"] / "heads.nc")
        measured, shown = heads[score["name"]].values.ravel(), np.array(score["values"], float)
        both = np.isfinite(measured)
        off = float(abs(shown - measured)[both].max()) if both.any() else 0.0
        rows[score["kind"]] = {"statistic": score["name"], "heads": int(both.sum()), "largest difference": f"{off:.0e}"}
pd.DataFrame(rows).T

# %% [markdown]
# The same but for rounding to four digits. A type with no heads is one that could not be measured: the model answered
# every question, so nothing it made up could be compared. The page shows a dash there, and no zero.
#
# ## 2. One file, and no network
#
# A page that fetches anything shows something else tomorrow, and tells a server who reads it. Here is everything in the
# markup that a browser could load, and the policy that the page gives itself:

# %%
from html.parser import HTMLParser


class Loads(HTMLParser):
    """Elements that load or run something."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for name in ("src", "href", "srcset", "action", "onerror", "onload", "onclick"):
            if given.get(name, "#")[:1] != "#":
                self.found.append(f"{tag} {name}={given[name][:40]}")
        if tag == "script":
            self.found.append(f"script {given.get('type', '')}".strip())


def loads(text: str) -> list[str]:
    reader = Loads()
    reader.feed(text)
    return reader.found


print(f"{len(page) / 1e6:.2f} MB; loads or runs: {loads(page)}")
print(re.sub("sha256-[^']*", "sha256-...", re.search(r'Content-Security-Policy" content="([^"]*)', page)[1]))

# %% [markdown]
# Its own data and one script. `default-src 'none'` forbids the browser to fetch anything, and the script runs only
# because its hash is the one named.
#
# ## 3. Try to break it
#
# Results may come from others. What if a file of results holds not a title, but code? In a copy of one run, two texts
# are changed to what an attacker would write.

# %%
import shutil

run = next(path.parent for path in Path("runs").rglob("heads.nc") if path.parent.name == "induction")
shutil.copytree(run, "hostile/run")
attack = "</script><script>alert(1)</script><img src=http://203.0.113.5/x onerror=alert(2)>"
heads = store.load("hostile/run/heads.nc")
heads["mass"].attrs["long_name"] = attack
store.save("hostile/run/heads.nc", heads.assign_attrs(title=attack, model=attack))
command("report hostile -o hostile.html")
hostile = Path("hostile.html").read_text(encoding="utf-8")
print("the text is on the page:", attack in json.dumps(json.loads(DATA.search(hostile)[1])))
print("loads or runs:", loads(hostile))

# %% [markdown]
# It is shown as the text that it is, and nothing more is loaded or run than before. One more way to do harm is to
# overwrite: a file that is no page of this command is not replaced.

# %%
Path("thesis.html").write_text("<h1>My thesis</h1>")
command("report runs -o thesis.html")
Path("thesis.html").read_text()

# %% [markdown]
# ## What misleads here
#
# * **A map is not a finding.** It shows attention and effects side by side, and they disagree: the strongest name mover
#   does nothing (see the notebook `ioi`). Read the card to the end.
# * **Colours are relative.** Each map begins and ends with its own scores. The number in the cell is what counts.
# * **A page is a copy.** It has four digits, and not the single prompts. To compute, take the files; to check them,
#   `nnheads rerun`.
#
# ## Where to go from here
#
# * In a shell: `nnheads report results`, `nnheads report results --attention reference --texts my.txt -o page.html`.
# * A single head on a text of yours: `nnheads inspect "some text" --head 2.4`; the page takes that along.
# * The same runs as one file for a program: the notebook `atlas`. Are they true? The notebook `rerun`.
