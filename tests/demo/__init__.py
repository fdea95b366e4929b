"""`make demo`: one node dies of old age and is brought back, told as it happens."""
