"""The small trained model that ships with nnheads: its name, and its folder.

transformers.AutoModelForCausalLM.from_pretrained(FOLDER)
"""

from __future__ import annotations

from pathlib import Path

REFERENCE = "reference"
FOLDER = Path(__file__).parent.parent / "reference" / "model"
