"""Judging answers: judges, votes, ratings, agreement, Elo and Bradley-Terry. Must not know torch or the screen."""
