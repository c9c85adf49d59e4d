"""What an audit found, in the order of harm, and in plain sentences."""
