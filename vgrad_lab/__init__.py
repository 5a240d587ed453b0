"""vgrad_lab: the value-gradient theory of critic-free RL for language models, made executable.

Importing this package loads NumPy and the standard library only. The floors are sub-packages:
``continuous`` (NumPy), ``sequence`` (needs torch), ``checkpoints`` (needs transformers).
"""

from vgrad_lab.ledger import LEDGER as LEDGER
from vgrad_lab.ledger import Statement as Statement
from vgrad_lab.ledger import Status as Status

__version__ = "0.1.0"
