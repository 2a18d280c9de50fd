"""``python -m kxai``: the command line."""

from __future__ import annotations

import sys

from kxai.cli import main

if __name__ == "__main__":
    sys.exit(main())
