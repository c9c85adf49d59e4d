"""The edge to other people's forms: an audit as CHAI's model card and as filled reporting checklists."""
