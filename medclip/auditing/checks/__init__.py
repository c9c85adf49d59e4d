"""What an audit looks at beside the figures of groups, one row of `CHECKS` each; no figures of groups."""
