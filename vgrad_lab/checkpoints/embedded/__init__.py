"""The embedded ladder: OLMo-2 checkpoints that the project pretrains itself, from text that ships with Python."""

from vgrad_lab.checkpoints.embedded.pretrain import TINY as TINY
from vgrad_lab.checkpoints.embedded.pretrain import LadderSettings as LadderSettings
from vgrad_lab.checkpoints.embedded.pretrain import pretrain as pretrain
