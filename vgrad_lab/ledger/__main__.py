"""Write docs/ledger.md: ``python -m vgrad_lab.ledger [PATH]``."""

import sys
from pathlib import Path

from vgrad_lab.ledger import LEDGER
from vgrad_lab.ledger.audit import page

if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "docs/ledger.md").write_text(page(LEDGER), encoding="utf-8")
