"""What is learned from: the table, its task and labels, the shots and their features; no method is here."""
