"""The output that people read: HTML pages, plots, tables, numbers and progress bars."""
