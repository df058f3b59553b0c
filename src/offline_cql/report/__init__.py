"""Reports over finished runs: the recommended alpha and checkpoint, tables, plots, one page.

Reads run folders and trains nothing; torch is not imported.
"""
