"""The ledger: every statement of the papers with a verdict that a test checks, and the corrections."""

from vgrad_lab.ledger.continuous import CONTINUOUS
from vgrad_lab.ledger.estimation import ESTIMATION
from vgrad_lab.ledger.estimators import BASELINES
from vgrad_lab.ledger.estimators_tokens import TOKENS
from vgrad_lab.ledger.gradient_gap import GRADIENT_GAP
from vgrad_lab.ledger.impact import IMPACT
from vgrad_lab.ledger.kl import KL
from vgrad_lab.ledger.neighbours import NEIGHBOURS
from vgrad_lab.ledger.off_policy import OFF_POLICY
from vgrad_lab.ledger.sampled import SAMPLED
from vgrad_lab.ledger.sequence import SEQUENCE
from vgrad_lab.ledger.trajectory import TRAJECTORY
from vgrad_lab.ledger.types import Counterexample as Counterexample
from vgrad_lab.ledger.types import Evidence as Evidence
from vgrad_lab.ledger.types import Statement as Statement
from vgrad_lab.ledger.types import Status as Status

_ENTRIES = (
    *CONTINUOUS,
    *ESTIMATION,
    *BASELINES,
    *TOKENS,
    *SEQUENCE,
    *IMPACT,
    *SAMPLED,
    *TRAJECTORY,
    *GRADIENT_GAP,
    *KL,
    *OFF_POLICY,
    *NEIGHBOURS,
)
LEDGER: dict[str, Statement] = {s.id: s for s in sorted(_ENTRIES, key=lambda s: s.id)}
"""All statements by id, in id order."""
