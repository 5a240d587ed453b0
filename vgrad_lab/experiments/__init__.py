"""One file per figure or claim: settings, statements, run, score, plot; imported by the CLI only."""
