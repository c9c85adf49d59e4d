"""DIMSE, the older protocol of PACS and scanners: objects are received (C-STORE), results are sent, and nothing is
queried or fetched.
"""
