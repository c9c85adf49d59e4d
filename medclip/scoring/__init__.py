"""Answers to what is asked of studies: tasks, heads and stored vectors to scores and their cautions; pages are not here."""
