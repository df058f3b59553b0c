"""Data set audit: statistics of logged transitions and the problems that they reveal.

`statistics.py` computes, `rules.py` judges, `table.py` and `page.py` show.
Neither changes the data nor trains.
"""
