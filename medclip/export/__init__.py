"""The edge to other people's forms: scores as DICOM SR and FHIR, an audit as CHAI's model card and as checklists.

Pages of our own are in `reports`.
"""
