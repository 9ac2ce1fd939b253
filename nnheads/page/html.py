"""Plain numbers and texts in, one HTML file out, which needs no network and runs no script but its
own.

Jinja escapes what stands in the markup and in the embedded JSON; the page's script sets everything
else as text. A policy in the head lets the browser run that one script, known by its hash, and
fetch nothing: a text in a file of results could not run even if it got into the markup.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nnheads.models.names import head_name
from nnheads.runs.columns import strength
from nnheads.stats import ranked

FOLDER = Path(__file__).parent
GENERATOR = '<meta name="generator" content="nnheads report">'
STRONGEST = 5
SCRIPTS = (
    "page.js",
    "compared.js",
    "results.js",
    "start.js",
)  # one script: what is shared first, what begins last


def html(page: dict) -> str:
    """Return the page of a `data.payload`."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    return environment.get_template("template.html").render(
        page=page,
        strongest=strongest(page),
        script=Markup(script),
        style=Markup(style),
        script_hash=Markup(digest(script)),
        style_hash=Markup(digest(style)),
    )


def digest(text: str) -> str:
    """Return the name by which a policy allows a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def strongest(page: dict) -> list[dict]:
    """Return the first heads of each headline, for readers without a script."""
    rows = []
    for model in page["models"]:
        for score in model["scores"]:
            if score["headline"]:
                width = model["kv_heads" if score["unit"] == "kv_head" else "heads"]
                strong = strength(np.array(score["values"], float), score["first"])
                best = ranked(strong)[:STRONGEST].tolist()
                names = [head_name(*divmod(i, width)) for i in best]
                names = (
                    [name.replace("H", "KV") for name in names]
                    if score["unit"] == "kv_head"
                    else names
                )
                heads = [f"{name} {score['values'][i]:.3f}" for i, name in zip(best, names)]
                rows.append(
                    {"model": model["name"], "score": score["kind"], "heads": ", ".join(heads)}
                )
    return rows
