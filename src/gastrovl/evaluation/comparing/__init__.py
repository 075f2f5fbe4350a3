"""Several models' replies to the same questions to differences, verdicts in words, and a gate for a team's own CI."""
