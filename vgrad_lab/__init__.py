"""vgrad_lab: the value-gradient theory of critic-free RL for language models, made executable.

Importing this package loads NumPy and Gymnasium only and registers ``gymnasium.make("vgrad_lab/LinearQuadratic-v0")``
and ``"vgrad_lab/TanhNetwork-v0"``. The floors are sub-packages:
``continuous`` (NumPy), ``sequence`` (needs torch), ``checkpoints`` (needs transformers).
"""

from vgrad_lab.ledger import LEDGER as LEDGER
from vgrad_lab.ledger import Statement as Statement
from vgrad_lab.ledger import Status as Status
from vgrad_lab.registration import register_environments

__version__ = "0.1.0"

register_environments()
