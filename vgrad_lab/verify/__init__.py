"""Public checkers of hand-written derivatives and of the one-step identity; they say which entry is wrong and why.

They know environments, policies and noises by their attributes only, so a reader's own class or module passes too. A
failed check raises AssertionError; an object that cannot be checked at all raises ValueError.
"""

from vgrad_lab.verify.derivatives import difference_quotients as difference_quotients
from vgrad_lab.verify.derivatives import taylor_rates as taylor_rates
from vgrad_lab.verify.objects import NoiseLike as NoiseLike
from vgrad_lab.verify.objects import check_environment as check_environment
from vgrad_lab.verify.objects import check_policy as check_policy
from vgrad_lab.verify.one_step import OneStep as OneStep
from vgrad_lab.verify.one_step import check_score_equals_pathwise as check_score_equals_pathwise
from vgrad_lab.verify.one_step import score_and_pathwise as score_and_pathwise
from vgrad_lab.verify.surface import Piecewise as Piecewise
from vgrad_lab.verify.surface import VectorStep as VectorStep
from vgrad_lab.verify.surface import score_and_pathwise_vector as score_and_pathwise_vector
