"""Lets the tests of this folder and the detector process share `upstream_messages`."""

from __future__ import annotations

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent))
