"""Speed: the programs beside every alternative, in turn, in one run."""
