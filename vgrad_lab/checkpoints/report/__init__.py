"""From the records of a run to one HTML page: predictors, scores, figures, verdict."""

from vgrad_lab.checkpoints.report.write import write_report as write_report
