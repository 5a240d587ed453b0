"""From the records of a run to one HTML page: predictors, scores, figures, verdict; several runs side by side."""

from vgrad_lab.checkpoints.report.compare import write_comparison as write_comparison
from vgrad_lab.checkpoints.report.write import write_report as write_report
