"""Everything about evaluation that needs no torch: question sets, answers, judging, votes, ranking, comparing runs."""
