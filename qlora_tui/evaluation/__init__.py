"""Question sets, answers, scores, and the comparison of runs, without torch. Must not know the arena or the screen."""
