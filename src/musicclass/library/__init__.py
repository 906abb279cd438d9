"""A whole music library: many files -> one table of genres, in parallel, though some of them are damaged.

run.py: folders -> files; results.py: the files to process; workers.py: their predictions; table.py, report.py: outputs
"""
