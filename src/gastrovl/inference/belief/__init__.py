"""How far an answer can be believed: calibration, label sets, abstention, checks, and what is out of scope."""
