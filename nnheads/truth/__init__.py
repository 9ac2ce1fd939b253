"""What heads know of truth: probes on their outputs, directions, and edits along them."""

from __future__ import annotations
