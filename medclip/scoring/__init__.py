"""Answers to what is asked of studies: tasks, heads and stored vectors to scores and cautions; pages are not here."""
