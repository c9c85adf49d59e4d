"""The page of an audit and its section for a model card; what the audit computes is in `auditing`."""
