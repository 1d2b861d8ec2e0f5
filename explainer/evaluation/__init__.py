"""How far explanations can be believed: figures over a data set."""
