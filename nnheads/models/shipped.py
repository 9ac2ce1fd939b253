"""The small trained model that ships with nnheads: its name, and the folder that plain transformers
can load.
"""

from __future__ import annotations

from pathlib import Path

REFERENCE = "reference"
FOLDER = Path(__file__).parent.parent / "reference" / "model"
