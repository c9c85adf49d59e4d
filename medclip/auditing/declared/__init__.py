"""What was declared before the data was seen: requirements, margins of equivalence, primary hypotheses."""
