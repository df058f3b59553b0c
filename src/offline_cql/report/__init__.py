"""What many finished runs say together: the choice of alpha and checkpoint, tables, plots, a page.

Reads run folders and trains nothing; torch is not imported.
"""
