"""The verbs, one file each: thin functions with the names and arguments of the commands."""
