"""Data set audit: statistics of logged transitions and the problems that they reveal.

`statistics.py` computes, `rules.py` and `behavior_rules.py` judge, `table.py` and `page.py` show.
Neither changes the data nor trains.
"""
