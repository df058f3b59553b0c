"""What is in a data set and what is wrong with it; nothing is changed and nothing is trained.

figures.py measures, findings.py judges, table.py and page.py show.
"""
