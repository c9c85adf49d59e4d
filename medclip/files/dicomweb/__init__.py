"""A PACS behind DICOMweb: ask what it has (QIDO), fetch studies (WADO), send results (STOW); what is sent is made in
`export/`.
"""
