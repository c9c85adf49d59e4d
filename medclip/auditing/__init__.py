"""Whether a model works for every patient group, from tables to rows; no page, no export, nothing over weeks."""
