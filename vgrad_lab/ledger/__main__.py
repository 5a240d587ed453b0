"""Write docs/ledger.md: ``python -m vgrad_lab.ledger [PATH]``."""

import sys
from pathlib import Path

from vgrad_lab.ledger import LEDGER
from vgrad_lab.ledger.audit import page

if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/ledger.md")
    proofs = {path.stem for path in (target.parent / "proofs").glob("[A-Z][0-9][0-9].md")}
    target.write_text(page(LEDGER, proofs=proofs), encoding="utf-8")
