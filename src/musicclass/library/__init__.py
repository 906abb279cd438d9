"""A whole music library: many files -> one table of genres, in parallel, whatever is wrong with some of them.

run.py: walk the folders -> journal.py: what is done, what is to do -> workers.py: processes that may die
-> journal.py again -> writers.py: the table; report.py: a page to look at.
"""
