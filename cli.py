"""Start the command line from a checkout: `python cli.py ioi`. The app is `recipes/_app.py`."""

from __future__ import annotations

from nnheads.recipes._app import app

if __name__ == "__main__":
    app()
